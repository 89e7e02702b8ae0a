"""Every error the gateway answers with, in one tree and one table.

DepthlensError
├── BadRequest 400            malformed_request, missing_image
│   ├── EmptyBody             empty_body
│   └── BrokenImage           truncated_image, damaged_image, empty_image
├── Unauthorized 401          unauthorized
├── ForeignOrigin 403         foreign_origin
├── UnknownModel 404          unknown_model (the router's own: unknown_route, and 405 method_not_allowed)
├── UnknownScene 404          unknown_scene
├── NoPreviousVersion 409     no_previous_version
├── LastServer 409            last_server
├── NotAcceptable 406         not_acceptable
├── RequestTimeout 408        request_timeout
├── TooLarge 413              body_too_large, image_too_large, image_too_long, too_many_scans, metadata_too_large,
│                             side_too_long_for_format, too_many_images, answer_too_large
├── UrlTooLong 414            url_too_long
├── UnsupportedMedia 415      not_an_image, unsupported_format, unsupported_content_type, unsupported_encoding
├── InvalidParameter 422      invalid_parameter, not_metric, not_relative, no_focal_length
│   ├── OutsideImage          outside_image
│   ├── NotAPerson            not_a_person
│   ├── UnknownPerson         unknown_person
│   ├── UnusableMap           invalid_map
│   ├── UnusablePair          size_mismatch, identical_pair, pair_too_small, not_rectified, swapped_pair
│   └── NoSavedState          no_saved_state
├── TooManyRequests 429       too_many_requests
├── UpgradeRequired 426       upgrade_required
├── TooManyStreams 429        too_many_streams
├── HeadersTooLarge 431       headers_too_large
├── UndecodableImage 422      too_costly_image, decoder_crashed
├── ClientLeft 499            client_left
├── ContractViolation 500     internal_error
├── ModelFailed 502           model_failed
│   └── RolloutFailed         rollout_failed
├── ModelUnavailable 503      model_unavailable
│   └── Draining              draining
├── Overloaded 503            overloaded
│   └── StreamsFull           too_many_streams
├── DecoderUnavailable 503    decoder_unavailable
└── DeadlineExceeded 504      deadline_exceeded

The body is RFC 9457 `application/problem+json`. What reaches a client is only what these classes were given: never a
traceback, a path or Triton's own text.
"""

from collections.abc import Mapping
from typing import Any

PROBLEM_MEDIA_TYPE = "application/problem+json"


class DepthlensError(Exception):
    """Base of everything that becomes a problem answer.

    Args:
        detail: one sentence for the caller: what was wrong and what to do.
        code: overrides the class's stable code.
        field: the offending parameter, header or body part.
        value: what was given, when it is short and the caller's own.
        limit: what is allowed.
        retry_after_s: seconds until another try makes sense.
        extra: further members of the problem body.
    """

    status: int = 500
    title: str = "Internal error"
    code: str = "internal_error"
    headers: Mapping[str, str] = {}

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        field: str | None = None,
        value: Any = None,
        limit: Any = None,
        retry_after_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.field = field
        self.value = value
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})

    def problem(self, request_id: str) -> dict[str, Any]:
        """The RFC 9457 body, JSON-ready; members that do not apply are left out."""
        body: dict[str, Any] = {
            "type": f"urn:depthlens:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        }
        optional = {"field": self.field, "value": self.value, "limit": self.limit}
        body.update({name: value for name, value in optional.items() if value is not None})
        return body | self.extra


class BadRequest(DepthlensError):
    """400: the request cannot be read."""

    status = 400
    title = "Malformed request"
    code = "malformed_request"


class EmptyBody(BadRequest):
    """400: no image bytes at all."""

    title = "No image in the request"
    code = "empty_body"


class BrokenImage(BadRequest):
    """400: an image in a format we read, but cut off or damaged."""

    title = "Damaged image"
    code = "truncated_image"


class Unauthorized(DepthlensError):
    """401: the route is locked, and no key, or not one of those that open it, was given."""

    status = 401
    title = "Key needed"
    code = "unauthorized"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class ForeignOrigin(DepthlensError):
    """403: a page of another origin opens a stream, and no setting allows it."""

    status = 403
    title = "Page of another origin"
    code = "foreign_origin"


class UnknownModel(DepthlensError):
    """404: no served model of that name for this route."""

    status = 404
    title = "Unknown model"
    code = "unknown_model"


class UnknownScene(DepthlensError):
    """404: no scene under that token, or no longer."""

    status = 404
    title = "Unknown scene"
    code = "unknown_scene"


class LastServer(DepthlensError):
    """409: the only inference server that answers cannot be taken out."""

    status = 409
    title = "Last server"
    code = "last_server"


class NoPreviousVersion(DepthlensError):
    """409: a rollback, and nothing to go back to."""

    status = 409
    title = "No previous version"
    code = "no_previous_version"


class NotAcceptable(DepthlensError):
    """406: none of the formats asked for can be had; the body lists those that can."""

    status = 406
    title = "No such format"
    code = "not_acceptable"


class RequestTimeout(DepthlensError):
    """408: the request's headers or body did not arrive in time."""

    status = 408
    title = "Request too slow"
    code = "request_timeout"


class TooLarge(DepthlensError):
    """413: too many bytes or pixels."""

    status = 413
    title = "Too large"
    code = "body_too_large"


class UrlTooLong(DepthlensError):
    """414: a request line that is too long."""

    status = 414
    title = "URL too long"
    code = "url_too_long"


class UnsupportedMedia(DepthlensError):
    """415: not an image, or not one of the formats we read."""

    status = 415
    title = "Not an image we read"
    code = "not_an_image"


class InvalidParameter(DepthlensError):
    """422: a parameter has a value outside its range."""

    status = 422
    title = "Invalid parameter"
    code = "invalid_parameter"


class OutsideImage(InvalidParameter):
    """422: a point that is not on the photo."""

    title = "Point outside the image"
    code = "outside_image"


class NotAPerson(InvalidParameter):
    """422: `mode=subject` with a click on no person."""

    title = "No person at the point"
    code = "not_a_person"


class UnknownPerson(InvalidParameter):
    """422: a person asked for by number who was not found in the photo; the body lists those who were."""

    title = "No such person"
    code = "unknown_person"


class UnusableMap(InvalidParameter):
    """422: an uploaded depth map or mask of the wrong size, kind or content."""

    title = "Map not usable"
    code = "invalid_map"


class UnusablePair(InvalidParameter):
    """422: two pictures that are no rectified pair, left and right."""

    title = "Not a stereo pair"
    code = "not_rectified"


class NoSavedState(InvalidParameter):
    """422: weights of a sequence to be restored that were never saved, or to be saved where none are kept."""

    title = "No saved state"
    code = "no_saved_state"


class TooManyRequests(DepthlensError):
    """429: more than this one client's share; others are served."""

    status = 429
    title = "Too many requests"
    code = "too_many_requests"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0, limit: Any = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, limit=limit)


class UpgradeRequired(DepthlensError):
    """426: a plain request to a route that speaks WebSocket."""

    status = 426
    title = "Open a WebSocket"
    code = "upgrade_required"
    headers: Mapping[str, str] = {"Upgrade": "websocket", "Connection": "Upgrade"}


class TooManyStreams(DepthlensError):
    """429: this client has its share of the streams already."""

    status = 429
    title = "Too many streams"
    code = "too_many_streams"


class HeadersTooLarge(DepthlensError):
    """431: too many headers, or too many bytes of them."""

    status = 431
    title = "Headers too large"
    code = "headers_too_large"


class UndecodableImage(DepthlensError):
    """422: nothing wrong by its header, but decoding it went beyond time or memory, or crashed the decoder."""

    status = 422
    title = "Image cannot be decoded"
    code = "decoder_crashed"


class ClientLeft(DepthlensError):
    """499, seen in logs and metrics only: nobody is left to read an answer."""

    status = 499
    title = "Client left"
    code = "client_left"


class ContractViolation(DepthlensError):
    """500: gateway and model disagree about tensors; our fault."""


class ModelFailed(DepthlensError):
    """502: the model ran and failed, or gave values that are not numbers."""

    status = 502
    title = "Model failed"
    code = "model_failed"


class RolloutFailed(ModelFailed):
    """502: a version that does not load or does not answer as the contract says; the one before it serves on."""

    title = "Version not usable"
    code = "rollout_failed"


class ModelUnavailable(DepthlensError):
    """503: the model or its server is absent, starting, dead or reloading."""

    status = 503
    title = "Model not available"
    code = "model_unavailable"

    def __init__(
        self,
        detail: str,
        *,
        retry_after_s: float = 1.0,
        code: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, code=code, extra=extra)


class Draining(ModelUnavailable):
    """503: this gateway is about to stop."""

    title = "Shutting down"
    code = "draining"


class Overloaded(DepthlensError):
    """503: more work than can be done before the deadline."""

    status = 503
    title = "Overloaded"
    code = "overloaded"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


class StreamsFull(Overloaded):
    """503: all streams that there may be are open."""

    title = "Too many streams"
    code = "too_many_streams"


class DecoderUnavailable(DepthlensError):
    """503: the process that decoded the photo was ended from outside, or none can be started."""

    status = 503
    title = "Decoder not available"
    code = "decoder_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after_s=1.0)


class DeadlineExceeded(DepthlensError):
    """504: the request's deadline passed before its answer was ready."""

    status = 504
    title = "Deadline exceeded"
    code = "deadline_exceeded"
