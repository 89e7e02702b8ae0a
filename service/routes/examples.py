"""Examples for the OpenAPI document, made by the classes that make the answers: their shape cannot be wrong."""

from typing import Any, Final

from service.errors import (
    BrokenImage,
    ContractViolation,
    DeadlineExceeded,
    DepthlensError,
    EmptyBody,
    InvalidParameter,
    ModelFailed,
    ModelUnavailable,
    NoPreviousVersion,
    NotAcceptable,
    NotAPerson,
    OutsideImage,
    Overloaded,
    RequestTimeout,
    RolloutFailed,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    UndecodableImage,
    UnknownModel,
    UnknownScene,
    UnsupportedMedia,
)
from service.schemas import (
    AdaptationReport,
    DepthPoint,
    DepthReport,
    MaskReport,
    PeopleReport,
    PersonReport,
    StereoReport,
)

_REQUEST_ID: Final = "b771270b68ef77d5"

_ERRORS: Final[tuple[DepthlensError, ...]] = (
    EmptyBody("There is no image in the request. Send it as multipart field `image`, or as the body.", field="image"),
    BrokenImage("The JPEG ends after 2000 bytes, before its last pixel; send the whole file."),
    Unauthorized("Send an API key, in X-API-Key or as Authorization: Bearer.", field="X-API-Key"),
    UnknownModel("No model 'depth_bts' for this route.", field="model", value="depth_bts"),
    UnknownScene("There is no such scene, or no longer. Send the photo again.", field="scene"),
    NotAcceptable(
        "There is no format 'docx'. Ask for one of: png16, npy.",
        field="format",
        value="docx",
        extra={
            "available": [
                {"format": "png16", "media_type": "image/png"},
                {"format": "npy", "media_type": "application/x-npy"},
            ]
        },
    ),
    RequestTimeout("The body came too slowly. Send it faster, or send less.", field="body"),
    NoPreviousVersion("There is no version to go back to.", field="model", value="focus_on_depth"),
    TooLarge("The image has 120000000 pixels.", code="image_too_large", value=120_000_000, limit=50_000_000),
    UnsupportedMedia("The bytes start like no picture format; send JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF."),
    InvalidParameter(
        "Parameter 'f_number': Input should be less than or equal to 22.", field="f_number", value="90", limit=22
    ),
    OutsideImage("The point is not on the photo.", field="x", value=[960, 1], limit=[640, 480]),
    NotAPerson("There is nobody at the point.", field="x", extra={"people": []}),
    UndecodableImage("Decoding the image took more than 10 s.", code="too_costly_image", limit=10),
    TooManyRequests("You have more requests waiting than your share. Wait for some of them."),
    ContractViolation("Something went wrong on our side; the request id finds it in the log."),
    ModelFailed("The model gave values that are not numbers."),
    RolloutFailed("Version 2 of focus_on_depth does not load; version 1 serves on.", field="version", value=2),
    ModelUnavailable("The model is starting. Try again in a moment."),
    Overloaded("There is more work than can be done in time. Try again later."),
    DeadlineExceeded("The request's deadline of 30 s passed during: infer.", field="X-Request-Timeout", limit=30.0),
)

PROBLEMS: Final[dict[int, dict[str, Any]]] = {
    status: {error.code: {"value": error.problem(_REQUEST_ID)} for error in _ERRORS if error.status == status}
    for status in {error.status for error in _ERRORS}
}
"""By status and code, as OpenAPI's `examples`."""

DEPTH_REPORT: Final = DepthReport(
    model="focus_on_depth",
    model_version="1",
    kind="relative-inverse",
    unit="relative",
    width=640,
    height=480,
    statistics={
        "min": 0.31,
        "max": 7.9,
        "mean": 2.6,
        "median": 1.9,
        "std": 2.1,
        "percentiles": {"5": 0.5, "50": 1.9, "95": 7.1},
    },
    points=[DepthPoint(x=320, y=240, value=7.2, relative=0.91)],
).model_dump()

STEREO_REPORT: Final = StereoReport(
    model="stereo_madnet",
    model_version="1",
    kind="metric",
    unit="m",
    width=640,
    height=480,
    statistics={
        "min": 2.1,
        "max": 48.0,
        "mean": 9.8,
        "median": 7.7,
        "std": 6.4,
        "percentiles": {"5": 2.9, "50": 7.7, "95": 22.0},
    },
    vertical_offset_px=0.12,
    adaptation=AdaptationReport(mode="mad", loss=0.083, group=3, frames=41, resets=0, reset=None, origin="kept"),
).model_dump()

MASK_REPORT: Final = MaskReport(
    model="focus_on_depth", model_version="1", width=640, height=480, coverage=0.243, box=(20, 96, 580, 480)
).model_dump()

PEOPLE_REPORT: Final = PeopleReport(
    model="focus",
    model_version="1",
    width=640,
    height=480,
    scene="qdZgsST73p3XKgQiebQoNCw25mvP84Wa",
    mode="subject",
    focus_depth=0.905,
    people=[PersonReport(id=0, box=(193, 96, 580, 480), depth=0.905, spread=0.044, area=0.234, sharp=True)],
).model_dump()
