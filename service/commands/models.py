"""`depthlens models`."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from service.commands import Options, fail

if TYPE_CHECKING:  # what it needs is slow to import, and not needed for help and completion
    from service.operator import OperatorSettings

EXAMPLES: Final = """examples:
  export DEPTHLENS_ADMIN_KEY=dl_...                     one of those in the gateway's DEPTHLENS_ADMIN_KEY_HASHES
  depthlens models list
  depthlens models load focus_on_depth 2
  depthlens models rollback focus_on_depth"""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The actions."""
    parser.add_argument("--gateway-url", help="where the gateway is (DEPTHLENS_GATEWAY_URL)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what is loaded")
    for action, help_text in (
        ("load", "serve this version once it has proved itself; the old one serves until then"),
        ("rollback", "serve the version before the last load"),
        ("unload", "serve no version: the model's routes answer 503"),
    ):
        words = actions.add_parser(action, help=help_text)
        words.add_argument("model")
        if action == "load":
            words.add_argument("version", type=int, help="folder in the model repository")


def run(options: Options) -> int:
    """Ask the gateway, and print what is served now."""
    from service import operator

    return operate(
        options,
        lambda settings: operator.run(settings, options["action"], options.get("model"), options.get("version")),
    )


def operate(options: Options, act: Callable[["OperatorSettings"], str]) -> int:
    """Print what the gateway says to an operator; returns the exit status."""
    from pydantic import ValidationError

    from service.operator import OperatorError, OperatorSettings

    given = {"gateway_url": options["gateway_url"]} if options["gateway_url"] else {}
    try:
        settings = OperatorSettings(**given)
    except ValidationError:
        return fail("the gateway's URL begins with http:// or https://", 2)
    try:
        print(act(settings))
    except OperatorError as error:
        return fail(str(error))
    return 0
