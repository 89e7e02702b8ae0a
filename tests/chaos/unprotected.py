"""`python -m tests.chaos.unprotected NAME serve ...`: the service without one protection, as a stock system is.

The functions in `removals/` are the NAMEs: each replaces one protection by what a service without it does, in a few
lines, and only that one; then the service's own `main` runs. The negative control of a row is started this way, and
must fail.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

from .removals.registry import UNPROTECTED, without

__all__ = ["UNPROTECTED", "main", "without"]

for _module in pkgutil.iter_modules([str(Path(__file__).with_name("removals"))]):
    importlib.import_module(f"{__package__}.removals.{_module.name}")


def main() -> int:
    """Remove the protection named first, then run the service with the rest of the arguments."""
    name, *arguments = sys.argv[1:]
    UNPROTECTED[name]()
    from service.__main__ import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
