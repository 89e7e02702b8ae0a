"""Log records that cannot be forged: whatever a client sends, a line that begins with a time is one of ours.

As text for people or as JSON for whatever collects it, each with the id of the request it is about. `service.access`
says what is kept of a request; addresses, keys and names of files are not.
"""

import json
import logging
import re
import sys
import time
from typing import Any, Final, Literal

from service.context import current

Format = Literal["text", "json"]

FIELDS: Final = "fields"
"""Name in a record's `extra` of what JSON shows beside the message."""

_MAX_CHARACTERS: Final = 8_000
"""Of one record: more than a traceback of ours, less than the headers a client may send."""

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""All but the line feed: C0, DEL and C1 controls, Unicode's line ends and changes of direction."""


def configure(level: str, format: Format = "text") -> None:
    """Send this process's records from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = SafeFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if format == "json" else text)
    # Not shown, so not looked up for every record (the logging HOWTO's "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler])


class SafeFormatter(logging.Formatter):
    """Control characters as escapes, further lines (of tracebacks) indented, all of it bounded."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return _CONTROL.sub(_escaped, _bounded(super().format(record))).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One object a line, in ASCII, so that nothing a client sends can end it; all of it bounded.

    `time` (RFC 3339, UTC), `level`, `logger`, `message`; `exception` where there is one; `request_id`, and `trace_id`
    where the request is traced, of a record about a request; and its `extra` named `fields`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = _bounded(self.formatException(record.exc_info))
        context = current.get()
        if context is not None:
            said["request_id"] = context.request_id
            if context.trace_id:
                said["trace_id"] = context.trace_id
        said |= getattr(record, FIELDS, {})
        return json.dumps(said, default=str)


def _bounded(text: str) -> str:
    if len(text) > _MAX_CHARACTERS:
        return f"{text[:_MAX_CHARACTERS]}... ({len(text) - _MAX_CHARACTERS} characters more)"
    return text


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
