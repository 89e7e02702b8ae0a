"""The files in a request: multipart fields, of which `image` is the photo, or the photo as the raw body.

Both give the same bytes. Nothing is written to disk: parts stay in memory, and the body is refused as soon as it passes
the limit.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, ClientLeft, EmptyBody, Overloaded, TooLarge, TooManyRequests, UnsupportedMedia

FIELD = "image"
_MAX_PARTS = 16
_MOST_COUNTED = 1_000  # photos: beyond it they are not even counted
_LONGEST_NAME = 200

Parts = Mapping[str, bytes]
"""Files of a request by field; the raw body counts as `image`."""


def request_body(maps: Mapping[str, str], *, required: bool = True) -> dict[str, Any]:
    """The request body in the OpenAPI document.

    Args:
        maps: further multipart fields and what each is.
        required: whether there must be a body at all.
    """
    binary = {"type": "string", "format": "binary"}
    fields = {FIELD: binary} | {name: binary | {"description": text} for name, text in maps.items()}
    form = {"type": "object", "properties": fields} | ({"required": [FIELD]} if required else {})
    return {
        "required": required,
        "description": f"The photo: multipart field `{FIELD}`, or the file's bytes as the body.",
        "content": {
            "multipart/form-data": {"schema": form},
            "image/*": {"schema": binary},
            "application/octet-stream": {"schema": binary},
        },
    }


REQUEST_BODY = request_body({})
"""That of a route that takes a photo alone."""


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, keeping parts in memory: the body limit bounds them already."""

    spool_max_size = 2**40
    complete = False

    def on_end(self) -> None:
        """The last boundary has come."""
        self.complete = True

    def close(self) -> None:
        """Free what the parts hold, those that were cut off among them."""
        for file in self._files_to_close_on_error:
            file.close()


class UploadMemory:
    """Bytes that the bodies of all requests hold together, bounded.

    The bodies of one client together hold no more than is left, so that there is always some for one that has none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes: Counter[str] = Counter()
        """By client; those that hold none are not there."""
        self.used_bytes = 0

    @contextmanager
    def share(self, client: str) -> Iterator["UploadShare"]:
        """One request's share, given back at the end of the block."""
        share = UploadShare(self, client)
        try:
            yield share
        finally:
            self.count(-share.held_bytes, client)

    def check_room(self, count: int, share: "UploadShare") -> None:
        """See `UploadShare.check_room`."""
        left = self._max_bytes - self.used_bytes - count
        if left < 0:
            raise Overloaded("Too many photos are being uploaded at once. Try again later.")
        held = self._held_bytes.get(share.client, 0)
        if held > share.held_bytes and held + count > left:
            raise TooManyRequests("Too many photos of yours are being uploaded at once. Try again later.")

    def count(self, count: int, client: str) -> None:
        """`count` bytes more are held by a client, or fewer."""
        self.used_bytes += count
        self._held_bytes[client] += count
        if not self._held_bytes[client]:
            del self._held_bytes[client]


class UploadShare:
    """What one request of a client holds of an `UploadMemory`."""

    def __init__(self, memory: UploadMemory, client: str) -> None:
        self._memory = memory
        self.client = client
        self.held_bytes = 0

    def check_room(self, count: int) -> None:
        """Whether `count` bytes more could be held; holds nothing yet, as not all keep their word.

        Raises:
            Overloaded: there are not so many left.
            TooManyRequests: other uploads of this client hold as many as would be left.
        """
        self._memory.check_room(count, self)

    def take(self, count: int) -> None:
        """Hold `count` more bytes; raises as `check_room`."""
        self.check_room(count)
        self._memory.count(count, self.client)
        self.held_bytes += count

    def give_back(self, count: int) -> None:
        """Hold `count` bytes less."""
        self._memory.count(-count, self.client)
        self.held_bytes -= count


async def read_image(request: Request, max_bytes: int, share: UploadShare) -> bytes:
    """The bytes of the posted image; raises as `read_parts` and `photo_of`."""
    return photo_of(await read_parts(request, max_bytes, share))


def photo_of(parts: Parts) -> bytes:
    """The photo among the files of a request.

    Raises:
        EmptyBody, BadRequest: there is none, or it has no bytes.
    """
    if parts and FIELD not in parts:
        raise _missing()
    if not parts.get(FIELD):
        raise EmptyBody("The image has zero bytes. Send the photo as multipart field `image` or as the body.")
    return parts[FIELD]


def _missing() -> BadRequest:
    return BadRequest(
        f"The form needs exactly one part called `{FIELD}`; it has 0.",
        code="missing_image",
        field=FIELD,
        value=0,
        limit=1,
    )


async def read_parts(request: Request, max_bytes: int, share: UploadShare, maps: Collection[str] = ()) -> Parts:
    """The files of a request, counted in `share` as they come; none when the body is empty.

    Args:
        request: not yet read; `check_head` has let it pass.
        max_bytes: the largest body.
        share: what this request holds of the memory for all.
        maps: fields a form may have beside the photo. A form with still others is refused: one of them may be
            misspelt. Without any, others are ignored.

    Raises:
        Overloaded: all bodies together would hold more memory than allowed.
        TooManyRequests: this client's bodies would.
        UnsupportedMedia: a content type that carries no image.
        TooLarge: more than `max_bytes` received.
        BadRequest: a multipart body that cannot be parsed, has a field twice or one that is not known.
        ClientLeft: the client went during the upload.
    """
    content_type = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    try:
        if content_type == "multipart/form-data":
            return await _from_multipart(request, max_bytes, share, maps)
        if content_type.startswith("image/") or content_type in ("", "application/octet-stream"):
            data = b"".join([chunk async for chunk in _bounded(request, max_bytes, share)])
            return {FIELD: data} if data else {}
    except ClientDisconnect as error:
        raise ClientLeft("The client closed the connection during the upload.") from error
    raise UnsupportedMedia(
        "Send the photo as multipart field `image`, or as the body with Content-Type image/* or "
        "application/octet-stream.",
        code="unsupported_content_type",
        field="Content-Type",
        value=content_type[:80],
    )


def check_head(request: Request, max_bytes: int, share: UploadShare) -> None:
    """What can be said of a body before any of it is read: nobody need send what is refused.

    Raises:
        UnsupportedMedia: a content encoding.
        TooLarge: more than `max_bytes` declared.
        BadRequest: the length is no number.
        Overloaded, TooManyRequests: see `UploadShare.check_room`.
    """
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia(
            "Compressed request bodies are not read; send the image file as it is, without Content-Encoding.",
            code="unsupported_encoding",
            field="Content-Encoding",
            value=encoding[:40],
            limit="identity",
        )
    declared = request.headers.get("content-length")
    if declared is None:
        return
    if not declared.isascii() or not declared.isdigit():
        raise BadRequest("Content-Length is not a number.", field="Content-Length", value=declared[:40])
    if int(declared) > max_bytes:
        raise _too_large(int(declared), max_bytes)
    share.check_room(int(declared))


def _too_large(size: int, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The body has more than {max_bytes} bytes. Send a smaller file.", field=FIELD, value=size, limit=max_bytes
    )


async def _bounded(request: Request, max_bytes: int, share: UploadShare) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(received, max_bytes)
        share.take(len(chunk))
        yield chunk


async def _from_multipart(request: Request, max_bytes: int, share: UploadShare, maps: Collection[str]) -> Parts:
    async with _form(request, max_bytes, share, _MAX_PARTS) as form:
        if not maps and FIELD not in form:
            raise _missing()
        known = {FIELD, *maps}
        if maps:
            _check_known(form, known)
        return {name: await _file(name, form.getlist(name)) for name in form if name in known}


@asynccontextmanager
async def _form(request: Request, max_bytes: int, share: UploadShare, max_parts: int) -> AsyncIterator[FormData]:
    """The parts of a multipart body; they are gone at the end of the block."""
    stream = _bounded(request, max_bytes, share)
    parser = _InMemoryParser(
        request.headers, stream, max_files=max_parts, max_fields=max_parts, max_part_size=max_bytes
    )
    try:
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise BadRequest(f"The multipart body cannot be parsed: {error.message}", field="body") from error
        except (KeyError, UnicodeDecodeError, ValueError) as error:
            raise BadRequest("The multipart body cannot be parsed.", field="body") from error
        finally:
            await stream.aclose()
        if not parser.complete:
            raise BadRequest("The multipart body ends before its last boundary.", field="body")
        yield form
    finally:
        parser.close()


def _check_known(form: FormData, known: Collection[str]) -> None:
    unknown = sorted(set(form) - set(known))
    if unknown:
        raise BadRequest(
            f"There is no part called `{unknown[0][:40]}` here; parameters belong into the query.",
            field=unknown[0][:40],
            limit=sorted(known),
        )


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """One of several photos in a request: its file name, as sent but no longer than 200 characters, and its bytes."""

    name: str
    data: bytes


async def read_photos(request: Request, max_bytes: int, share: UploadShare, max_count: int) -> list[NamedPhoto]:
    """All photos of a request, in their order: the field `image`, repeated, or the body as the only one.

    Args:
        request: not yet read; `check_head` has let it pass.
        max_bytes: the largest body, of all photos together.
        share: what this request holds of the memory for all.
        max_count: most photos.

    Raises:
        BadRequest: there is none, or a field of another name.
        TooLarge: more than `max_count`, code `too_many_images`.
        Overloaded, TooManyRequests, UnsupportedMedia, ClientLeft: as `read_parts`.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "multipart/form-data":
        return [NamedPhoto("", await read_image(request, max_bytes, share))]
    try:
        async with _form(request, max_bytes, share, _MOST_COUNTED) as form:
            _check_known(form, {FIELD})
            parts = form.getlist(FIELD)
            if not parts:
                raise _missing()
            if len(parts) > max_count:
                raise TooLarge(
                    f"At most {max_count} photos can be sent at once.",
                    code="too_many_images",
                    field=FIELD,
                    value=len(parts),
                    limit=max_count,
                )
            return [NamedPhoto(_name(part), await _file(FIELD, [part])) for part in parts]
    except ClientDisconnect as error:
        raise ClientLeft("The client closed the connection during the upload.") from error


def _name(part: str | UploadFile) -> str:
    return "" if isinstance(part, str) else (part.filename or "")[:_LONGEST_NAME]


async def _file(name: str, parts: list[str | UploadFile]) -> bytes:
    if len(parts) != 1:
        raise BadRequest(
            f"The form needs exactly one part called `{name}`; it has {len(parts)}.",
            field=name,
            value=len(parts),
            limit=1,
        )
    (part,) = parts
    if isinstance(part, str):  # parsed as text, so its bytes are lost
        raise BadRequest(f"The part `{name}` has no file name; send it as a file (curl: -F {name}=@file).", field=name)
    return await part.read()
