"""What the OpenAPI document says of every image route: the body, the errors, the media types."""

from typing import Any

from service.errors import PROBLEM_MEDIA_TYPE
from service.routes import examples
from service.schemas import Problem
from service.upload import REQUEST_BODY

_PROBLEMS = {
    400: "the request or the image is damaged",
    401: "a key is needed here",
    404: "no such model or scene",
    406: "no such format; the body lists those there are",
    408: "the body came too slowly",
    413: "too many bytes or pixels",
    415: "not an image we read",
    409: "there is no version to go back to",
    422: "a parameter is out of its range",
    429: "more than one client's share; see Retry-After",
    500: "our fault",
    502: "the model failed",
    503: "overloaded, starting or draining; see Retry-After",
    504: "the deadline passed",
}

_EVERY_ANSWER = {"X-Request-Id": "finds the request in the log; the caller's own where it sent one"}
_RETRY_AFTER = {"Retry-After": "whole seconds until another try makes sense"}
_WITH_STATUS = {401: {"WWW-Authenticate": "`Bearer`"}, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
_WITH_WORK = _EVERY_ANSWER | {"Server-Timing": "milliseconds by stage: decode, queue, infer, render, encode"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for these error statuses."""
    schema = Problem.model_json_schema()
    return {
        status: {
            "description": _PROBLEMS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema, "examples": examples.PROBLEMS[status]}},
            "headers": _headers(_EVERY_ANSWER | _WITH_STATUS.get(status, {})),
        }
        for status in statuses
    }


def _headers(meanings: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in meanings.items()}


def image_route(
    description: str,
    media_types: list[str],
    headers: dict[str, str],
    body: dict[str, Any] = REQUEST_BODY,
    report: Any = None,
) -> dict[str, Any]:
    """Keyword arguments for a route that takes a photo.

    Args:
        description: of the successful answer.
        media_types: those the successful answer can have.
        headers: name and meaning of the answer's own headers.
        body: the request's.
        report: an example of the answer in JSON, where it has that form.
    """
    success: dict[str, Any] = {
        "description": description,
        "content": {media_type: {"schema": _schema(media_type)} for media_type in media_types},
        "headers": _headers(headers | _WITH_WORK),
    }
    if report is not None:
        success["content"]["application/json"]["example"] = report
    return {
        "responses": {200: success, **problems(*(status for status in _PROBLEMS if status != 409))},
        "openapi_extra": {
            "requestBody": body,
            "parameters": [
                {
                    "name": "X-Request-Timeout",
                    "in": "header",
                    "required": False,
                    "description": "deadline in seconds, capped by the server",
                    "schema": {"type": "number", "exclusiveMinimum": 0},
                }
            ],
        },
    }


def _schema(media_type: str) -> dict[str, str]:
    return {"type": "object"} if media_type == "application/json" else {"type": "string", "format": "binary"}
