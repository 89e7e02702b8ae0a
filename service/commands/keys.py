"""`depthlens keys`."""

import argparse
from typing import Final

from service.commands import Options

EXAMPLES: Final = """examples:
  depthlens keys new"""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The action."""
    parser.add_argument("action", choices=["new"], help="print a new key and its hash; nothing is kept")


def run(options: Options) -> int:
    """Print a key nobody has, and its hash."""
    from service.clients import hash_of, new_key

    key = new_key()
    print(f"key   {key}\nhash  {hash_of(key)}")
    return 0
