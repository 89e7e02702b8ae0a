"""Every code that a problem answer may carry, read from the table in `service/errors.py`."""

import re

from service import errors

KNOWN_CODES = frozenset(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", errors.__doc__ or "")) | {
    "draining",
    "overloaded",
    "unauthorized",
}
