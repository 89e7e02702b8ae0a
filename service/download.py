"""One file over HTTP, resumed after a cut, kept only when its SHA-256 is the expected one.

While it comes it lies beside its place as `NAME.part`, with the server's mark of this version of it in `NAME.part.tag`,
so that a later call goes on where this one ended; a file of another digest is set aside as `NAME.rejected`. The file
under its own name is whole and checked, or absent.
"""

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service import __version__

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0  # of connecting, and of each silence after
_ATTEMPTS = 5  # in a row that bring nothing
_FIRST_PAUSE_S = 1.0  # before the second attempt; doubled before each further one
_RETRIED_FROM = 500  # statuses from here on are the server's trouble, which may pass; so are these:
_RETRIED = frozenset({408, 425, 429})
_RANGE_NOT_SATISFIABLE = 416

Progress = Callable[[int, int | None], None]
"""Told of the bytes that are there and of those there will be, None when the server does not say."""


class DownloadError(Exception):
    """One line for the user."""


@dataclass(frozen=True)
class Download:
    """What is wanted.

    Attributes:
        url: http or https.
        target: Where the file goes; its folder is made if need be.
        sha256: Expected digest, lower-case hex; None when nobody knows it, and then no file is kept under its name.
        sha256_begins: Hex digits it is known to begin with.
    """

    url: str
    target: Path
    sha256: str | None
    sha256_begins: str = ""

    def run(self, progress: Progress, pause_s: float = _FIRST_PAUSE_S, timeout_s: float = _TIMEOUT_S) -> bool:
        """Fetches the file, or finds it there.

        Args:
            progress: Told every megabyte or so.
            pause_s: Before the second attempt.
            timeout_s: Of each silence of the server.

        Returns:
            Whether anything was fetched; False when the file was there already.

        Raises:
            DownloadError: Refused, unreachable, no space, or of another digest than expected.
        """
        if self.target.exists():
            self._check_present()
            return False
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("ab") as file:
                self._lock(file)
                self._fetch_all(file, progress, pause_s, timeout_s)
                os.fsync(file.fileno())
                self._keep()
        except OSError as error:
            raise DownloadError(f"{error.filename or self._part}: {error.strerror}") from error
        return True

    @property
    def _part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def _tag(self) -> Path:
        return self.target.with_name(self.target.name + ".part.tag")

    def _check_present(self) -> None:
        found = file_sha256(self.target)
        if self.sha256 is None:
            raise DownloadError(f"{self.target} is there already; if you trust {found}, say so with --sha256")
        if found != self.sha256:
            raise DownloadError(
                f"{self.target} is there already, but its SHA-256 is {found}, not {self.sha256}: move it away"
            )

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"{self._part} is being written by another download") from error

    def _fetch_all(self, file: BinaryIO, progress: Progress, pause_s: float, timeout_s: float) -> None:
        failures = 0
        while True:
            before = file.tell()
            try:
                if self._fetch(file, progress, timeout_s):
                    return
                reason = "the connection was cut"
            except urllib.error.HTTPError as error:
                error.close()
                reason = f"the server answered {error.code} {error.reason}"
                if error.code < _RETRIED_FROM and error.code not in _RETRIED:
                    raise DownloadError(f"{self.url}: {reason}") from error
            except urllib.error.URLError as error:
                reason = _reason(error.reason)
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                reason = _reason(error)
            failures = 1 if file.tell() > before else failures + 1
            if failures >= _ATTEMPTS:
                there = (
                    f"; {file.tell()} bytes are kept in {self._part}, run this again to go on" if file.tell() else ""
                )
                raise DownloadError(f"{self.url}: {reason}, {_ATTEMPTS} times in a row{there}")
            time.sleep(pause_s * 2 ** (failures - 1))

    def _fetch(self, file: BinaryIO, progress: Progress, timeout_s: float) -> bool:
        """One request; whether the file is whole after it."""
        have = file.seek(0, os.SEEK_END)
        headers = {"User-Agent": f"depthlens/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            with suppress(FileNotFoundError):
                headers["If-Range"] = self._tag.read_text()
        if not re.match("https?://", self.url):
            raise DownloadError(f"{self.url}: not an http or https address")
        request = urllib.request.Request(self.url, headers=headers)
        try:
            answer = urllib.request.urlopen(request, timeout=timeout_s)  # nosec B310  # the scheme is checked above
        except urllib.error.HTTPError as error:
            if error.code != _RANGE_NOT_SATISFIABLE or not have:
                raise
            error.close()
            return self._at_end(file, error.headers.get("Content-Range", ""))
        with answer:
            total = self._begin(file, answer, have)
            progress(file.tell(), total)
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), total)
            file.flush()
        return total is None or file.tell() >= total

    def _begin(self, file: BinaryIO, answer: http.client.HTTPResponse, have: int) -> int | None:
        """Puts the file where the answer's bytes belong; how many there will be in all."""
        length = answer.headers.get("Content-Length")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status == http.client.PARTIAL_CONTENT:
            if not found or int(found[1]) != have:
                _empty(file)
                raise http.client.HTTPException("the server sent another part than the one asked for")
            total = None if found[2] == "*" else int(found[2])
        else:  # all of it: nothing was there, the server knows no ranges, or the file has changed
            _empty(file)
            total = int(length) if length else None
            tag = answer.headers.get("ETag", "")
            if tag.startswith('"'):  # a weak one says nothing of bytes
                self._tag.write_text(tag)
            else:
                self._tag.unlink(missing_ok=True)
        free = shutil.disk_usage(self.target.parent).free
        if total is not None and total - file.tell() > free:
            raise DownloadError(f"{self.target.parent}: {total - file.tell()} more bytes to come, {free} are free")
        return total

    def _at_end(self, file: BinaryIO, content_range: str) -> bool:
        """Whether there is nothing after what is there because that is all; if not, it is of something else."""
        found = re.fullmatch(r"bytes \*/(\d+)", content_range)
        if found and int(found[1]) == file.tell():
            return True
        _empty(file)
        self._tag.unlink(missing_ok=True)
        return False

    def _keep(self) -> None:
        """Gives the file its name, if it is what was expected."""
        found = file_sha256(self._part)
        if self.sha256 is None and found.startswith(self.sha256_begins):
            raise DownloadError(
                f"no SHA-256 is known of this file; what came is kept in {self._part} and has {found}: "
                f"compare it with one you trust, then run this again with --sha256"
            )
        self._tag.unlink(missing_ok=True)
        if self.sha256 is None or found != self.sha256:
            rejected = self.target.with_name(self.target.name + ".rejected")
            os.replace(self._part, rejected)
            expected = self.sha256 or f"one that begins with {self.sha256_begins}"
            raise DownloadError(f"{self.url}: SHA-256 is {found}, expected {expected}; set aside as {rejected}")
        os.replace(self._part, self.target)


def file_sha256(path: Path) -> str:
    """Hex digest of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server was silent too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
