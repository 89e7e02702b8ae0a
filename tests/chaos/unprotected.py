"""`python -m tests.chaos.unprotected NAME service serve ...`: the service without one protection, as a stock system is.

The functions in `removals/` are the NAMEs: each replaces one protection by what a service without it does, in a few
lines, and only that one; then the module after it runs as `python -m` runs it. The negative control of a row is started
this way, and must fail.
"""

import importlib
import pkgutil
import runpy
import sys
from pathlib import Path

from .removals.registry import UNPROTECTED, without

__all__ = ["UNPROTECTED", "main", "without"]

for _module in pkgutil.iter_modules([str(Path(__file__).with_name("removals"))]):
    importlib.import_module(f"{__package__}.removals.{_module.name}")


def main() -> None:
    """Remove the protection named first, then run the module named next with the rest of the arguments."""
    _, name, module, *arguments = sys.argv
    UNPROTECTED[name]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
