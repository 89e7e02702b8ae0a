"""`depthlens stereo`: pairs of pictures in, their disparity or depth out; folders of them are a sequence."""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.commands import Options, fail

if TYPE_CHECKING:
    from service.batch.display import Display
    from service.batch.pairs import PairFile
    from service.batch.server import JobSettings

_INTERRUPTED: Final = 130
_TIMEOUT_S: Final = 120.0

EXAMPLES: Final = """examples:
  depthlens stereo left.png right.png -o disparity.png                       256 = one pixel
  depthlens stereo left.png right.png -o depth.npy --focal-px 721 --baseline-m 0.54     metres
  depthlens stereo left/ right/ -o maps/ --report maps/adaptation.jsonl      learns along the way
  depthlens stereo left/ right/ -o maps/ --adapt none --format jpeg

Folders are paired by the order of their names, and are one sequence. For a video that holds both pictures, see
depthlens video --task stereo. Exit status: 0 all went well, 1 a pair or the job failed, 2 the command line is wrong,
130 interrupted."""

_PARAMETERS: Final = {
    "format": "png16 (default), npy, or colours: jpeg, webp, png; a single result's suffix says it, too",
    "adapt": "mad (default), full or none: what is learned from each pair for the next ones",
    "sequence": "name of a sequence to go on with, and that others may go on with; default: one that ends with the job",
    "checkpoint": "restore: begin with the sequence's saved weights; save: save them after the first pair",
    "focal_px": "focal length of the left picture in pixels; with --baseline-m the result is in metres",
    "baseline_m": "distance of the cameras in metres",
    "max_side": "longest side of the result, and of what the network sees (default: the picture's, and 640)",
    "colormap": "of colours, such as turbo (default), inferno, viridis, gray",
}
_SUFFIXES: Final = {"png16": ".png", "npy": ".npy", "jpeg": ".jpg", "webp": ".webp", "png": ".png"}
_FORMATS: Final = {".npy": "npy", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The pairs, where results go, and the stream's parameters."""
    parser.add_argument("left", type=Path, metavar="LEFT", help="what the left camera saw: a file, or a folder of them")
    parser.add_argument("right", type=Path, metavar="RIGHT", help="what the right one saw: the same")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="file, or folder for folders")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument("--report", type=Path, metavar="FILE", help="JSON lines: what the service said of each pair")
    parser.add_argument(
        "--server", metavar="URL", help="service to ask (DEPTHLENS_GATEWAY_URL); default: one of its own"
    )
    parser.add_argument(
        "--timeout", type=float, default=_TIMEOUT_S, metavar="SECONDS", help="for each pair (default %(default)g)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only failures")
    group = parser.add_argument_group("parameters of WS /frames?task=stereo")
    for name, about in _PARAMETERS.items():
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"query.{name}", metavar="VALUE", help=about)


def run(options: Options) -> int:
    """Work through the pairs; the exit status."""
    from pydantic import ValidationError

    from service.batch.pairs import pair_files
    from service.batch.plan import WrongUse
    from service.batch.server import JobSettings

    out: Path = options["out"]
    given = {name.removeprefix("query."): value for name, value in options.items() if name.startswith("query.")}
    parameters = {name: value for name, value in given.items() if value is not None}
    if not options["left"].is_dir() and "format" not in parameters:
        parameters["format"] = _FORMATS.get(out.suffix.lower(), "png16")
    suffix = _SUFFIXES.get(parameters.get("format", "png16"), ".png")
    try:
        settings = JobSettings(**({"gateway_url": options["server"]} if options["server"] else {}))
        pairs = pair_files(options["left"], options["right"], out, suffix)
    except ValidationError:
        return fail("the service's URL begins with http:// or https://", 2)
    except WrongUse as error:
        return fail(str(error), 2)
    there = [pair.target for pair in pairs if os.path.lexists(pair.target)]
    if there and not options["overwrite"]:
        return fail(
            f"{there[0]}{f' and {len(there) - 1} more' if len(there) > 1 else ''} there already: --overwrite", 2
        )
    try:
        return asyncio.run(_job(options, settings, parameters, pairs))
    except KeyboardInterrupt:
        return fail("interrupted", _INTERRUPTED)


async def _job(options: Options, settings: "JobSettings", parameters: dict[str, Any], pairs: list["PairFile"]) -> int:
    from service.batch.display import Display
    from service.batch.report import write_whole
    from service.batch.server import NoService, service_at
    from service.client import ClientError

    start, said = time.monotonic(), list[dict[str, Any]]()
    with Display(len(pairs), "waiting for the service", "pair", options["quiet"]) as display:
        try:
            async with service_at(settings.gateway_url) as url:
                display.begin("stereo")
                await _pairs(options, settings, url, parameters, pairs, display, said)
            if options["report"] is not None:
                write_whole(options["report"], "".join(json.dumps(words) + "\n" for words in said).encode())
        except (NoService, ClientError) as error:
            display.line(str(error))
            return 1
        except OSError as error:
            display.line(f"{error.filename}: {error.strerror}")
            return 1
    failed = sum(words["type"] == "error" for words in said)
    if not options["quiet"]:
        more = f", {failed} failed" if failed else ""
        print(f"depthlens: {len(said)} pairs{more} in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return int(failed > 0)


async def _pairs(
    options: Options,
    settings: "JobSettings",
    url: str,
    parameters: dict[str, Any],
    pairs: list["PairFile"],
    display: "Display",
    said: list[dict[str, Any]],
) -> None:
    from service.batch.report import write_whole
    from service.client import AsyncClient, FrameResult

    client = AsyncClient(url, api_key=settings.api_key.get_secret_value(), timeout_s=options["timeout"])
    async with client, client.stream("stereo", drop="none", **parameters) as stream:
        async for answer in stream.run((pair.left, pair.right) for pair in pairs):
            pair = pairs[answer.frame]
            named = {"left": str(pair.left), "right": str(pair.right)}
            if isinstance(answer, FrameResult):
                await asyncio.to_thread(write_whole, pair.target, answer.data)
                said.append(named | {"out": str(pair.target)} | dict(answer.words))
            else:
                display.line(f"{pair.left}, {pair.right}: {answer.problem}")
                said.append(named | {"type": "error", "frame": answer.frame, "problem": str(answer.problem)})
            display.advance()
