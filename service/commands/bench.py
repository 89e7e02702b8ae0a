"""`depthlens bench`."""

import argparse
import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.commands import Options, fail

if TYPE_CHECKING:
    from service.benchmark.page import Part

PARTS: Final = {
    "limit": "what the processor multiplies and copies at most",
    "infer": "the default network by itself, in float32 and bfloat16",
    "stages": "whole requests by stage, and photos a second at saturation",
    "refocus": "preparing and rendering by the megapixel, and a second click",
    "cold": "what is installed, start to ready, first request",
}
"""Modules of `service.benchmark` and what they measure, in the order they run."""

EXAMPLES: Final = """examples:
  depthlens bench                                       everything, some minutes on a machine with nothing else to do
  depthlens bench --only stages cold
  depthlens bench --json bench.json > bench.md

It starts services of its own on free ports. For the same beside other ways of doing it: make bench."""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """What is measured, and where it goes."""
    listed = "; ".join(f"{name}: {about}" for name, about in PARTS.items())
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"these alone ({listed})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works: figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--model-repository", type=Path, help="repository to serve (DEPTHLENS_MODEL_REPOSITORY)")


def run(options: Options) -> int:
    """Measure, with progress on standard error; the tables go to standard output, in Markdown."""
    from service.benchmark import machine
    from service.benchmark.effort import FULL, QUICK
    from service.benchmark.serving import BenchmarkError

    if not all(importlib.util.find_spec(name) for name in ("openvino", "pytriton")):
        return fail("bench starts the embedded service: pip install 'depthlens[embedded]'", 2)
    repository = chosen_repository(options["model_repository"])
    if not (repository / "focus_on_depth" / "1" / "model.onnx").is_file():
        return fail(f"there is no default network in {repository}; name another with --model-repository", 2)
    effort = replace(QUICK if options["quick"] else FULL, repository=repository)
    about = machine.describe()
    print(f"# depthlens bench\n\n{about['cpu']}. {about['versions']}.\n", flush=True)
    parts: list[Part] = []
    for name in options["only"] or PARTS:
        print(f"depthlens: {name}: {PARTS[name]} ...", file=sys.stderr, flush=True)
        try:
            part: Part = importlib.import_module(f"service.benchmark.{name}").run(effort)
        except BenchmarkError as error:
            return fail(f"{name}: {error}")
        parts.append(replace(part, about=machine.describe()))
        print(parts[-1].markdown(), flush=True)
    if options["json"] is not None:
        written = {part.name: part.plain() for part in parts}
        options["json"].write_text(json.dumps({"machine": about, "parts": written}, indent=1) + "\n")
    return 0


def chosen_repository(given: Path | None) -> Path:
    """The one given, or that of the settings where it is there, else the one beside this package."""
    from service.settings import Settings

    named: dict[str, Any] = {} if given is None else {"model_repository": given}
    chosen = Settings(**named).model_repository
    beside = Path(__file__).parents[2] / "model_repository"
    return beside if given is None and not chosen.is_dir() and beside.is_dir() else chosen
