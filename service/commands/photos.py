"""`depthlens depth`, `depthlens segment` and `depthlens focus`: photos in, files out."""

import argparse
import asyncio
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from service import queries, schemas
from service.batch import names
from service.batch.plan import STREAM, Item, WrongUse, existing, plan
from service.commands import Options, fail
from service.commands.parameters import add_parameters, parameters_of

_PARALLEL: Final = 4
_TIMEOUT_S: Final = 120.0
_INTERRUPTED: Final = 130

EXAMPLES: Final = """examples:
  depthlens depth photo.jpg -o depth.png
  depthlens depth photos/ -o out/ --format npy             a folder: the same folders and names under out/
  depthlens segment 'photos/**/*.jpg' -o masks/ --skip     a pattern; results that are there are left alone
  depthlens focus photo.jpg -o sharp.jpg --x 320 --y 240   pixels of the upright photo
  depthlens focus photos/ -o out/ --person all --blur 0.8 --report report.json
  cat photo.jpg | depthlens depth - -o - --format npy > depth.npy
  depthlens depth photos/ -o out/ --server http://gpu:8080 --jobs 16

Without --server (or DEPTHLENS_GATEWAY_URL) the embedded service is started for the job and stopped after it.
DEPTHLENS_API_KEY holds the key where the service wants one. Exit status: 0 all went well, 1 some photos failed,
2 the command line is wrong, 130 interrupted."""


@dataclass(frozen=True, slots=True)
class _Task:
    route: str
    query: type[BaseModel]
    without: tuple[str, ...] = ()


_TASKS: Final = {
    "depth": _Task("/depth", queries.DepthQuery),
    "segment": _Task("/segmentation", queries.SegmentationQuery),
    "focus": _Task("/focus", schemas.FocusQuery, without=("scene",)),
}


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Photos, where results go, and the route's parameters."""
    parser.add_argument(
        "inputs", nargs="+", metavar="PHOTO", help="file, folder, quoted pattern, or - for standard input"
    )
    parser.add_argument(
        "-o", "--out", metavar="OUT", help="folder; or a file for a single photo's result; or - for standard output"
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace results that are there")
    there.add_argument("--skip", action="store_true", help="leave results that are there, and do the others")
    parser.add_argument(
        "-j", "--jobs", type=_positive, default=_PARALLEL, help="photos at a time (default %(default)s)"
    )
    parser.add_argument(
        "--server", metavar="URL", help="service to ask (DEPTHLENS_GATEWAY_URL); default: one of its own"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help="for each photo, waiting for a busy service included (default %(default)g)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="JSON: what became of each photo")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only failures")
    task = _TASKS[command]
    add_parameters(parser, task.query, task.route, task.without)


def run(options: Options) -> int:
    """Do the job; the exit status."""
    from service.batch.server import JobSettings

    command = options["command"]
    try:
        settings = JobSettings(**({"gateway_url": options["server"]} if options["server"] else {}))
        parameters, items = _prepare(command, options)
        there = existing(items)
        if there and not options["overwrite"] and not options["skip"]:
            raise WrongUse(
                f"{there[0].target}{f' and {len(there) - 1} more' if len(there) > 1 else ''} there already: "
                "--overwrite or --skip"
            )
    except ValidationError:
        return fail("the service's URL begins with http:// or https://", 2)
    except (WrongUse, ValueError) as error:
        return fail(str(error), 2)
    return asyncio.run(_job(options, settings, parameters, items, there if options["skip"] else []))


def _prepare(command: str, options: Options) -> tuple[dict[str, str], list[Item]]:
    """The query and the items; raises WrongUse or ValueError."""
    task = _TASKS[command]
    out = options["out"] or (STREAM if options["inputs"] == [STREAM] else None)
    if out is None:
        raise WrongUse("say where the result goes: -o FILE, -o FOLDER, or -o - for standard output")
    parameters = parameters_of(options, task.query)
    if command == "focus" and not _aimed(parameters):
        parameters |= {"rx": "0.5", "ry": "0.5"}
    default = names.result_format(command, parameters)
    if "format" not in parameters and out != STREAM and not Path(out).is_dir() and len(options["inputs"]) == 1:
        formats = task.query.model_json_schema()["properties"]["format"]["enum"]
        chosen = (
            names.format_of(Path(out), tuple(formats), default) if _names_a_file(options["inputs"][0], out) else None
        )
        parameters |= {"format": chosen} if chosen else {}
    format = names.result_format(command, parameters)
    if out == STREAM and sys.stdout.isatty() and format != "json":
        raise WrongUse("the result is no text for a terminal: -o FILE, or send standard output to a file or program")
    items = plan(options["inputs"], out, lambda source: names.result_suffix(format, source), names.PHOTO_SUFFIXES)
    return parameters, items


def _names_a_file(word: str, out: str) -> bool:
    return bool(Path(out).suffix) and not out.endswith("/") and not Path(word).is_dir()


def _aimed(parameters: dict[str, str]) -> bool:
    """Whether there is a focus, or none is needed; the middle of the photo is it otherwise."""
    aims = {"x", "y", "rx", "ry", "person"} & parameters.keys()
    return bool(aims) or parameters.get("output") in ("people", "labels", "depth")


async def _job(
    options: Options, settings: Any, parameters: dict[str, str], items: list[Item], skipped: list[Item]
) -> int:
    from service.batch.display import Display
    from service.batch.report import counted, report, write_report
    from service.batch.server import NoService, service_at
    from service.batch.work import Job, work
    from service.client import AsyncClient

    command = options["command"]
    job = Job(_TASKS[command].route, parameters, items, skipped, options["jobs"])
    outcomes = job.outcomes()
    start = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    server = settings.gateway_url or "embedded"
    status = 1
    with Display(len(items), "waiting for the service", "photo", options["quiet"]) as display:
        try:
            async with service_at(settings.gateway_url) as url:
                client = AsyncClient(url, api_key=settings.api_key.get_secret_value(), timeout_s=options["timeout"])
                display.begin(command)
                try:
                    await work(job, client, outcomes, display)
                except asyncio.CancelledError:
                    display.say("stopping")
                    raise
                finally:
                    await client.close()
            status = int(any(outcome.status in ("failed", "not_started") for outcome in outcomes))
        except NoService as error:
            display.line(str(error))
        except asyncio.CancelledError:
            status = _INTERRUPTED
    counts = counted(outcomes)
    if options["report"]:
        try:
            content = report(command, server, parameters, outcomes, time.monotonic() - start, status)
            write_report(options["report"], content)
        except OSError as error:
            return fail(f"{options['report']}: {error.strerror}", status or 1)
    if not options["quiet"]:
        said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        stopped = "interrupted: " if status == _INTERRUPTED else ""
        print(f"depthlens: {stopped}{said} in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return status


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
