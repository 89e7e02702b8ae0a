"""What can go wrong for a caller of the client, in one tree.

ClientError
├── ConnectionFailed        nobody answered: refused, unknown name, cut off, no valid certificate
├── TimedOut                the call's time was over, retries included
├── UnexpectedAnswer        something answered, but not as Depthlens does (a proxy, another service)
└── Problem                 the service's own refusal, RFC 9457, with its stable `code`
    ├── BadPhoto            400, 413, 415, 422: the photo is damaged, too large, no image, or cannot be decoded
    ├── Unauthorized        401
    ├── NotFound            404, 405
    │   ├── UnknownModel
    │   └── UnknownScene    the token has expired; a `Photo` sends itself again without a word
    ├── NotAcceptable       406: no such format; `extra["available"]` lists those there are
    ├── InvalidParameter    422: `field`, `value` and `limit` say which
    │   ├── OutsideImage
    │   ├── NotAPerson      `extra["people"]` lists those found
    │   ├── UnknownPerson
    │   └── UnusableMap
    ├── TooManyRequests     429: more than this client's share
    ├── ModelFailed         502
    ├── Unavailable         503: overloaded, starting or stopping
    ├── DeadlineExceeded    504
    └── ServerFault         any other 5xx
"""

import json
from collections.abc import Mapping
from typing import Any

PROBLEM_MEDIA_TYPE = "application/problem+json"


class ClientError(Exception):
    """Base of everything that the client raises, apart from `OSError` for a file of yours that cannot be read."""


class ConnectionFailed(ClientError):
    """Nobody answered."""


class TimedOut(ClientError):
    """The call's whole time was over; the last refusal or failure, if there was one, is its `__cause__`."""


class UnexpectedAnswer(ClientError):
    """An answer that is not Depthlens's."""


class Problem(ClientError):
    """A problem document.

    Attributes:
        status: HTTP status.
        code: stable, for programs.
        detail: what was wrong and what to do, for people.
        field: the offending parameter, header or part.
        value: what was given.
        limit: what is allowed.
        request_id: finds the request in the service's log.
        retry_after_s: seconds until another try makes sense, when the service said so.
        extra: further members of the document.
    """

    def __init__(
        self, status: int, document: Mapping[str, Any], request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        self.status = status
        self.code = str(document["code"])
        self.detail = str(document["detail"])
        self.field: str | None = document.get("field")
        self.value: Any = document.get("value")
        self.limit: Any = document.get("limit")
        self.request_id = str(document.get("request_id", request_id))
        self.retry_after_s = retry_after_s
        known = {"type", "title", "status", "code", "detail", "field", "value", "limit", "request_id"}
        self.extra = {name: value for name, value in document.items() if name not in known}
        super().__init__(f"{status} {self.code}: {self.detail}")


class BadPhoto(Problem):
    """The photo itself: damaged, too large, not an image, or not to be decoded."""


class Unauthorized(Problem):
    """A key is needed, or another one."""


class NotFound(Problem):
    """No such thing."""


class UnknownModel(NotFound):
    """No served model of that name for this route."""


class UnknownScene(NotFound):
    """The scene has expired."""


class NotAcceptable(Problem):
    """No such format."""


class InvalidParameter(Problem):
    """A parameter outside its range."""


class OutsideImage(InvalidParameter):
    """A point that is not on the photo."""


class NotAPerson(InvalidParameter):
    """`mode="subject"` and a click on no person."""


class UnknownPerson(InvalidParameter):
    """A person by a number that nobody has."""


class UnusableMap(InvalidParameter):
    """An own depth map or mask of the wrong size, kind or content."""


class TooManyRequests(Problem):
    """More than one client's share."""


class ModelFailed(Problem):
    """The model ran and failed."""


class Unavailable(Problem):
    """Overloaded, starting or stopping."""


class DeadlineExceeded(Problem):
    """The service did not make it in the time that it was given."""


class ServerFault(Problem):
    """The service's own fault."""


BY_CODE: dict[str, type[Problem]] = {
    "unknown_model": UnknownModel,
    "unknown_scene": UnknownScene,
    "outside_image": OutsideImage,
    "not_a_person": NotAPerson,
    "unknown_person": UnknownPerson,
    "invalid_map": UnusableMap,
    "too_costly_image": BadPhoto,
    "decoder_crashed": BadPhoto,
    "body_too_large": BadPhoto,
}

BY_STATUS: dict[int, type[Problem]] = {
    400: BadPhoto,
    401: Unauthorized,
    404: NotFound,
    405: NotFound,
    406: NotAcceptable,
    413: BadPhoto,
    415: BadPhoto,
    422: InvalidParameter,
    429: TooManyRequests,
    502: ModelFailed,
    503: Unavailable,
    504: DeadlineExceeded,
}


def problem_of(status: int, headers: Mapping[str, str], body: bytes, retry_after_s: float | None) -> ClientError:
    """The error that an answer of 4xx or 5xx stands for; a code of a newer service falls back to its status."""
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type == PROBLEM_MEDIA_TYPE:
        try:
            document = json.loads(body)
            kind = BY_CODE.get(document["code"]) or BY_STATUS.get(status)
            kind = kind or (ServerFault if status >= 500 else Problem)
            return kind(status, document, headers.get("x-request-id", ""), retry_after_s)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # said to be a problem document, and is none
    if status == 503:  # a proxy's, while the service behind it is away
        document = {"code": "unavailable", "detail": "The service is not available; a proxy before it said so."}
        return Unavailable(status, document, headers.get("x-request-id", ""), retry_after_s)
    return UnexpectedAnswer(f"answered {status} with {media_type or 'no content type'}, not as Depthlens does")
