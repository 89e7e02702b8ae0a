"""Every exception becomes one `application/problem+json` answer, here and nowhere else."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    BadRequest,
    BrokenImage,
    ContractViolation,
    DepthlensError,
    InvalidParameter,
    OutsideImage,
    Overloaded,
    TooLarge,
    UndecodableImage,
    UnsupportedMedia,
)
from service.imaging import errors as imaging_errors

logger = logging.getLogger("depthlens")

_IMAGE_ERRORS: dict[type[imaging_errors.ImageError], type[DepthlensError]] = {
    imaging_errors.NotAnImage: UnsupportedMedia,
    imaging_errors.UnsupportedFormat: UnsupportedMedia,
    imaging_errors.DamagedImage: BrokenImage,
    imaging_errors.ImageTooLarge: TooLarge,
    imaging_errors.ImageTooCostly: UndecodableImage,
    imaging_errors.OutsideImage: OutsideImage,
    imaging_errors.ImageError: BadRequest,
}


class _RouteProblem(DepthlensError):
    """What the router refuses: no such path, no such method."""

    def __init__(self, status: int, detail: str, code: str, title: str) -> None:
        super().__init__(detail, code=code)
        self.status = status
        self.title = title


def to_error(error: Exception, request: Request) -> DepthlensError:
    """The member of our tree that stands for any exception."""
    return _from_router(error, request) if isinstance(error, HTTPException) else of_work(error)


def of_work(error: Exception) -> DepthlensError:
    """The same for what is not the router's."""
    if isinstance(error, DepthlensError):
        return error
    if isinstance(error, imaging_errors.ImageError) and not isinstance(error, imaging_errors.InvalidMap):
        kind = next(ours for theirs in type(error).__mro__ if (ours := _IMAGE_ERRORS.get(theirs)))
        return kind(str(error), code=error.code, field=error.field, value=error.value, limit=error.limit)
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    return ContractViolation("Something went wrong on our side; the request id finds it in the log.")


def problem_response(error: Exception, request: Request) -> Response:
    """The answer for any exception; logs what is our fault with its traceback."""
    ours = to_error(error, request)
    context: RequestContext = request.state.context
    context.problem_code = ours.code
    if ours.status >= 500 and not isinstance(ours, Overloaded):  # under overload the access log says it often enough
        cause = error if ours.status == 500 else None
        logger.error("request %s: %s %s", context.request_id, ours.code, ours.detail, exc_info=cause)
    headers, body = written(ours, context.request_id)
    if isinstance(error, HTTPException) and error.headers:
        headers |= dict(error.headers)
    return Response(body, status_code=ours.status, headers=headers)


def written(error: DepthlensError, request_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer for an error, the same wherever it is answered."""
    headers = {"Content-Type": PROBLEM_MEDIA_TYPE, **error.headers}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return headers, orjson.dumps(error.problem(request_id), default=str)


async def handle(request: Request, error: Exception) -> Response:
    """Starlette's exception handler."""
    return problem_response(error, request)


def from_validation(errors: Sequence[Any]) -> InvalidParameter:
    """The first of pydantic's errors, in our words."""
    first = errors[0]
    name = str(first["loc"][-1])[:60]
    bounds: dict[str, Any] = first.get("ctx") or {}
    limit = next((bounds[key] for key in ("ge", "gt", "le", "lt", "max_length", "expected") if key in bounds), None)
    if first["type"] == "extra_forbidden":
        detail = f"There is no parameter {name!r} here. See /docs for those there are."
    else:
        detail = f"Parameter {name!r}: {first['msg']}."
    value = first.get("input")
    return InvalidParameter(detail, field=name, value=str(value)[:100] if value is not None else None, limit=limit)


def _from_router(error: HTTPException, request: Request) -> DepthlensError:
    if error.status_code == 404:
        return _RouteProblem(404, "There is no such route. See /docs.", "unknown_route", "Not found")
    if error.status_code == 405:
        return _RouteProblem(
            405, f"{request.method} is not allowed on this route.", "method_not_allowed", "Method not allowed"
        )
    return _RouteProblem(error.status_code, str(error.detail), "malformed_request", "Malformed request")
