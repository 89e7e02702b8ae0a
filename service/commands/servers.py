"""`depthlens servers`."""

import argparse
from typing import Final

from service.commands import Options
from service.commands.models import operate

EXAMPLES: Final = """examples:
  export DEPTHLENS_ADMIN_KEY=dl_...                     one of those in the gateway's DEPTHLENS_ADMIN_KEY_HASHES
  depthlens servers list
  depthlens servers drain 10.0.0.7:8001                 returns when it works on nothing any more
  depthlens servers resume 10.0.0.7:8001"""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The actions."""
    parser.add_argument("--gateway-url", help="where the gateway is (DEPTHLENS_GATEWAY_URL)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the Tritons behind the gateway, and which of them are asked")
    for action, help_text in (
        ("drain", "give it nothing new, and wait until what it works on has ended"),
        ("resume", "put it back"),
    ):
        actions.add_parser(action, help=help_text).add_argument("address", help="address:port, as `list` has it")


def run(options: Options) -> int:
    """Ask the gateway, and print what is so now."""
    from service import operator

    return operate(options, lambda settings: operator.run_servers(settings, options["action"], options.get("address")))
