"""What became of each photo, as JSON."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Status = Literal["ok", "failed", "skipped", "interrupted", "not_started"]


@dataclass(slots=True)
class Outcome:
    """One photo's.

    Attributes:
        input: its path, `-` for standard input.
        output: where the result is, or would be; `-` for standard output.
        status: `skipped` where the result was there; `interrupted` or `not_started` when the job ended before.
        code: the problem's code; `unreadable`, `unwritable`, `connection_failed`, `timed_out`, `unexpected_answer`;
            else the status.
        detail: the error in words.
        http_status: of the answer, where there was one.
        seconds: from reading the photo to the result on disk, waiting included.
        model: who answered.
        model_version: its version.
        request_id: finds the request in the service's log.
    """

    input: str
    output: str
    status: Status = "not_started"
    code: str = "not_started"
    detail: str | None = None
    http_status: int | None = None
    seconds: float | None = None
    model: str | None = None
    model_version: str | None = None
    request_id: str | None = None


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many of each status."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {status: counts[status] for status in get_args(Status)}


def report(
    command: str, server: str, parameters: Mapping[str, str], outcomes: Sequence[Outcome], seconds: float, status: int
) -> dict[str, Any]:
    """The whole job's, JSON-ready."""
    return {
        "command": command,
        "server": server,
        "parameters": dict(parameters),
        "seconds": round(seconds, 3),
        "exit_status": status,
        "totals": counted(outcomes),
        "files": [asdict(outcome) for outcome in outcomes],
    }


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Raises OSError."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def umask() -> int:
    """What new files are not allowed; read from the kernel, since asking Python changes it for a moment."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077
