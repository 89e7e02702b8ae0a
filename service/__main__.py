"""The command line: `depthlens serve`, `depthlens keys`, `depthlens models`, `depthlens weights`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from pydantic import ValidationError

from service import __version__
from service.clients import hash_of, new_key
from service.download import DownloadError
from service.embedded.binary import BinaryMissingError
from service.embedded.others import models_in
from service.embedded.supervisor import TritonStartError
from service.logs import configure
from service.operator import OperatorError, OperatorSettings, run
from service.server import bind, serve
from service.settings import Settings
from service.weights import listing, pull

_SERVE_EXAMPLES = """examples:
  depthlens serve                                       embedded Triton and gateway on 127.0.0.1:8080
  depthlens serve --port 9000
  DEPTHLENS_TRITON_URL=triton:8001 depthlens serve      gateway alone, Triton elsewhere

Every setting is an environment variable DEPTHLENS_*, listed in the README."""


_MODELS_EXAMPLES = """examples:
  export DEPTHLENS_ADMIN_KEY=dl_...                     one of those in the gateway's DEPTHLENS_ADMIN_KEY_HASHES
  depthlens models list
  depthlens models load focus_on_depth 2
  depthlens models rollback focus_on_depth"""

_WEIGHTS_EXAMPLES = """examples:
  depthlens weights list
  depthlens weights pull depth_anything_v2_small
  python -m training import --weights weights/depth_anything_v2_vits.pth --as depth_anything_v2_small \\
      --out runs/depth_anything_v2_small.pt"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 after a stop by signal, 1 when the service cannot run, 2 for wrong arguments or settings.
    """
    options = vars(_parser().parse_args(arguments))
    if options["command"] == "keys":
        key = new_key()
        print(f"key   {key}\nhash  {hash_of(key)}")
        return 0
    if options["command"] == "models":
        return _models(options)
    if options["command"] == "weights":
        return _weights(options)
    given = {name: value for name, value in options.items() if value is not None and name != "command"}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        given_value = "" if "key" in str(first["loc"][0]) else f" (given: {first['input']!r})"  # it may be one
        return _fail(f"setting {first['loc'][0]}: {first['msg']}{given_value}", 2)
    if settings.triton_url is None and (missing := _missing(settings)):
        return _fail(missing, 2)
    configure(settings.log_level)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        return _fail(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")
    with listener:
        try:
            uvloop.run(serve(settings, listener))
        except KeyboardInterrupt:
            return 130
        except (BinaryMissingError, TritonStartError) as error:
            return _fail(str(error).splitlines()[0])  # Triton's own lines are in the log already
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthlens", description="Depth maps, person mattes and refocused photos behind a REST call."
    )
    parser.add_argument("--version", action="version", version=f"depthlens {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "serve",
        help="run the gateway, with an embedded Triton unless another is named",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--host", help="address to listen on (DEPTHLENS_HOST)")
    command.add_argument("--port", type=int, help="port to listen on, 0 = any free one (DEPTHLENS_PORT)")
    command.add_argument("--triton-url", help="host:port of a running Triton's gRPC endpoint (DEPTHLENS_TRITON_URL)")
    command.add_argument("--model-repository", help="repository of the embedded server (DEPTHLENS_MODEL_REPOSITORY)")
    keys = commands.add_parser("keys", help="make an API key, and the hash that DEPTHLENS_API_KEY_HASHES wants of it")
    keys.add_argument("action", choices=["new"], help="print a new key and its hash; nothing is kept")
    models = commands.add_parser(
        "models",
        help="see and change which version of a model serves",
        epilog=_MODELS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument("--gateway-url", help="where the gateway is (DEPTHLENS_GATEWAY_URL)")
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
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
    weights = commands.add_parser(
        "weights",
        help="fetch published weights of other networks onto this machine",
        epilog=_WEIGHTS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what can be fetched, under which license")
    words = actions.add_parser("pull", help="fetch one, or go on with one that was cut")
    words.add_argument("name", help="one of the list")
    words.add_argument("--to", type=Path, default=Path("weights"), help="folder (default weights)")
    words.add_argument("--sha256", default="", help="digest that you trust, where the list knows none")
    words.add_argument("--url", default="", help="address of a mirror; the digest must be the same")
    return parser


def _weights(options: dict[str, Any]) -> int:
    if options["action"] == "list":
        print(listing())
        return 0
    try:
        print(pull(options["name"], options["to"], options["sha256"], options["url"]))
    except DownloadError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("stopped; run this again to go on", 130)
    return 0


def _missing(settings: Settings) -> str | None:
    """What is wrong with the models behind the routes: one that was named, or all of them, are not there."""
    there = models_in(settings.model_repository)
    names = {field: str(getattr(settings, field)) for field in ("depth_model", "segmentation_model", "focus_model")}
    wrong = [field for field in names if field in settings.model_fields_set and names[field] not in there]
    if not there or (not wrong and there & set(names.values())):  # an empty repository is the supervisor's to report
        return None
    field = (wrong or list(names))[0]
    listed = ", ".join(sorted(there))
    return f"setting {field}: {names[field]} is not in the repository {settings.model_repository}, which has {listed}"


def _models(options: dict[str, Any]) -> int:
    given = {"gateway_url": options["gateway_url"]} if options["gateway_url"] else {}
    try:
        settings = OperatorSettings(**given)
    except ValidationError:
        return _fail("the gateway's URL begins with http:// or https://", 2)
    try:
        print(run(settings, options["action"], options.get("model"), options.get("version")))
    except OperatorError as error:
        return _fail(str(error))
    return 0


def _fail(message: str, status: int = 1) -> int:
    print(f"depthlens: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
