"""What is being measured just now, on standard error, for whoever waits."""

import sys
import time
from typing import Final

_STARTED_S: Final = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED_S:6.0f} s  {text}", file=sys.stderr, flush=True)
