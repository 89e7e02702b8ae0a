"""The command line: `depthlens serve`, `depthlens depth`, ...; see `service.commands`."""

import sys
from collections.abc import Sequence

from service import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    try:
        return commands.run(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
