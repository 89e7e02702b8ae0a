"""`depthlens weights`."""

import argparse
from pathlib import Path
from typing import Final

from service.commands import Options, fail

EXAMPLES: Final = """examples:
  depthlens weights list
  depthlens weights pull depth_anything_v2_small
  python -m training import --weights weights/depth_anything_v2_vits.pth --as depth_anything_v2_small \\
      --out runs/depth_anything_v2_small.pt"""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what can be fetched, under which license")
    words = actions.add_parser("pull", help="fetch one, or go on with one that was cut")
    words.add_argument("name", help="one of the list")
    words.add_argument("--to", type=Path, default=Path("weights"), help="folder (default weights)")
    words.add_argument("--sha256", default="", help="digest that you trust, where the list knows none")
    words.add_argument("--url", default="", help="address of a mirror; the digest must be the same")


def run(options: Options) -> int:
    """List, or fetch."""
    from service.download import DownloadError
    from service.weights import listing, pull

    if options["action"] == "list":
        print(listing())
        return 0
    try:
        print(pull(options["name"], options["to"], options["sha256"], options["url"]))
    except DownloadError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("stopped; run this again to go on", 130)
    return 0
