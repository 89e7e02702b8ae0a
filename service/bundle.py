"""Several files in one answer: a zip, or multipart/mixed (RFC 2046, section 5.1.3), each file with its own headers."""

import io
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from service.negotiation import Offer

OFFERS: Final = (Offer("zip", "application/zip"), Offer("multipart", "multipart/mixed"))

_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the format's first: the same files are the same bytes


@dataclass(frozen=True, slots=True)
class File:
    """One answer, alone or among others.

    Attributes:
        name: of the file, such as `depth.png`.
        media_type: of its bytes.
        body: those.
        headers: what is said of it beside its type.
    """

    name: str
    media_type: str
    body: bytes
    headers: dict[str, str]

    def response(self) -> Response:
        """The answer that is this file."""
        return Response(self.body, media_type=self.media_type, headers=self.headers)


def bundled(files: Sequence[File], offer: Offer) -> Response:
    """The answer that holds `files`, in their order, as one of `OFFERS`."""
    if offer.format == "zip":
        return Response(zipped(files), media_type=offer.media_type)
    boundary = secrets.token_hex(16)
    return Response(_multipart(files, boundary), media_type=f"{offer.media_type}; boundary={boundary}")


def zipped(files: Sequence[File]) -> bytes:
    """A zip of `files`, not packed any further: they are packed already, but for arrays and meshes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name, _ZIP_DATE), file.body)
    return stream.getvalue()


def _multipart(files: Sequence[File], boundary: str) -> bytes:
    pieces = []
    for file in files:
        said = {
            "Content-Type": file.media_type,
            "Content-Disposition": f'attachment; filename="{file.name}"',
            "Content-Length": str(len(file.body)),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in (said | file.headers).items())
        pieces += [f"--{boundary}\r\n{lines}\r\n".encode("latin-1"), file.body, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])
