"""The commands of `depthlens`, each in a module of its own that is imported when it is called, and not before.

A module has `EXAMPLES`, `arguments(parser, command)` and `run(options) -> int`, the exit status.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from service import __version__

Options = dict[str, Any]
"""What was given, by name."""

_MODULES: Final = {
    "serve": ("serve", "run the gateway, with an embedded Triton unless another is named"),
    "depth": ("photos", "depth maps of photos"),
    "segment": ("photos", "mattes of the people in photos"),
    "focus": ("photos", "photos refocused on a click or on a person"),
    "stereo": ("stereo", "disparity or depth of stereo pairs, by a network that adapts to them"),
    "video": ("video", "a video's depth, its people, or the video refocused"),
    "models": ("models", "see and change which version of a model serves"),
    "servers": ("servers", "take one of several Tritons out of rotation, and put it back"),
    "weights": ("weights", "fetch published weights of other networks onto this machine"),
    "keys": ("keys", "make an API key, and the hash that DEPTHLENS_API_KEY_HASHES wants of it"),
    "bench": ("bench", "measure how fast the service is on this machine"),
    "completion": ("completion", "completion of this command line for bash, zsh or fish"),
}
"""Module and help of each command, in the order of the help."""

_EXAMPLES: Final = """examples:
  depthlens serve
  depthlens depth photo.jpg -o depth.png
  depthlens focus photos/ -o out/ --rx 0.5 --ry 0.5
  depthlens COMMAND --help                              options and examples of a command"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Returns:
        The exit status: 0 all went well, 1 something failed, 2 the command line or a setting is wrong, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    named = [word for word in words if word in _MODULES]
    options: Options = vars(parser(named[:1]).parse_args(words))
    return int(_module(options["command"]).run(options))


def parser(detailed: Sequence[str] = tuple(_MODULES)) -> argparse.ArgumentParser:
    """The parser, with the arguments of those commands only whose details are wanted: their modules are imported."""
    root = argparse.ArgumentParser(
        prog="depthlens",
        description="Depth maps, person mattes and refocused photos, from a service of your own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"depthlens {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, about) in _MODULES.items():
        module = _module(name) if name in detailed else None
        command = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=module.EXAMPLES if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # what is an abbreviation today is ambiguous with the next option
        )
        if module is not None:
            module.arguments(command, name)
    return root


def fail(message: str, status: int = 1) -> int:
    """Say what went wrong in one line on standard error; returns the exit status."""
    print(f"depthlens: {message}", file=sys.stderr)
    return status


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"service.commands.{_MODULES[command][0]}")
