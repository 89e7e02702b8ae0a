"""Log records that cannot be forged: whatever a client sends, a line that begins with a time is one of ours."""

import logging
import re
import sys
from typing import Final

_MAX_CHARACTERS: Final = 8_000
"""Of one record: more than a traceback of ours, less than the headers a client may send."""

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""All but the line feed: C0, DEL and C1 controls, Unicode's line ends and changes of direction."""


def configure(level: str) -> None:
    """Send this process's records from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class SafeFormatter(logging.Formatter):
    """Control characters as escapes, further lines (of tracebacks) indented, all of it bounded."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        text = super().format(record)
        if len(text) > _MAX_CHARACTERS:
            text = f"{text[:_MAX_CHARACTERS]}... ({len(text) - _MAX_CHARACTERS} characters more)"
        return _CONTROL.sub(_escaped, text).replace("\n", "\n    ")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
