"""The web page at `/`, and the plain files of `service/web` that it is made of.

Nothing is built and nothing comes from another host. The files have no version in their names, so that browsers are
told to ask whether theirs is still the right one (`no-cache` and an ETag): the answer is 304, without a body.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_INDEX: Final = "index.html"

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webp": "image/webp",
}

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # an animation that has been answered is shown from memory
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the page: bytes, media type, and the ETag that names them."""

    body: bytes
    media_type: str
    etag: str


@cache
def _page() -> dict[str, _File]:
    """Every file of the page by name; other names than these are none of ours."""
    found = {}
    for entry in files("service").joinpath("web").iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            body = entry.read_bytes()
            found[entry.name] = _File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, _page()[_INDEX])


@router.api_route("/web/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """One of the files that the page names."""
    file = _page().get(name)
    if file is None or name == _INDEX:  # whose links hold at `/` alone
        raise HTTPException(404)
    return _answer(request, file)


def _answer(request: Request, file: _File) -> Response:
    headers = _HEADERS | {"ETag": file.etag}
    if _has(request, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


def _has(request: Request, etag: str) -> bool:
    """Whether the client says that it has the file already: RFC 9110 section 13.1.2, compared weakly."""
    said = ",".join(request.headers.getlist("if-none-match"))
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in said.split(","))
