"""`depthlens video`: a video in, one of its depth, its people, or refocused, out."""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.commands import Options, fail

if TYPE_CHECKING:
    from service.batch.display import Display
    from service.batch.server import JobSettings

_INTERRUPTED: Final = 130
_TIMEOUT_S: Final = 120.0

EXAMPLES: Final = """examples:
  depthlens video in.mp4 -o depth.mp4                                   depth as colours of one range
  depthlens video in.mp4 -o focus.mp4 --task focus --rx 0.3 --ry 0.5    follows the person at that point
  depthlens video in.mov -o small.mp4 --task focus --max-side 720 --f-number 2
  depthlens video in.mp4 -o people.webm --task segment --server http://gpu:8080
  depthlens video rig.mp4 -o disparity.mp4 --task stereo                the left and the right picture side by side

Frame times, rate and sound stay as they are; the picture comes out upright. Needs the extra `video`:
pip install 'depthlens[video]'. Exit status: 0 all went well, 1 a frame or the video failed, 2 the command line is
wrong, 130 interrupted. A video that is not whole never gets its name."""

_TASKS: Final = {"depth": "depth", "segment": "segmentation", "focus": "focus", "stereo": "stereo"}
_SIDE_BY_SIDE: Final = {"pair": "side_by_side"}
"""How a video holds two pictures, where nothing else is said."""
_PARAMETERS: Final = {
    "model": "served model; see GET /models",
    "max_side": "longest side of the result in pixels",
    "steady": "on: one scale over time (default); off: every frame for itself",
    "pair": "stereo: side_by_side (default) or top_bottom, as the video holds both pictures",
    "adapt": "stereo: what is learned from each pair: mad (default), full or none",
    "colormap": "depth, stereo: colours, such as turbo (default), inferno, viridis, gray",
    "near": "depth, stereo: share of the video's range shown as the nearest colour (default 1)",
    "far": "depth, stereo: share of the range shown as the farthest colour (default 0)",
    "x": "focus: column of the point to focus on in the first frame, in pixels",
    "y": "focus: its row",
    "rx": "focus: column as a share of the width, instead of --x",
    "ry": "focus: row as a share of the height, instead of --y",
    "person": "focus: person of the first frame, nearest = 0. Default: the nearest, else the middle",
    "mode": "focus: auto (default), subject or plane",
    "f_number": "focus: aperture, larger = less blur (default 2.8)",
    "blur": "focus: strength instead of --f-number, 0 to 1",
    "blades": "focus: corners of the aperture, 0 = a disc (default), or 5 to 9",
    "highlights": "focus: light given back to small clipped lamps: auto (default), off, or 0 to 1",
    "transition": "focus: frames from one subject to another (default 6)",
}


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The video, where the result goes, and the stream's parameters."""
    parser.add_argument("input", type=Path, metavar="VIDEO", help="any video that FFmpeg reads")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="its name says the kind: .mp4, .mov, .mkv, .webm",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a result that is there")
    parser.add_argument("--task", choices=list(_TASKS), default="depth", help="what is made of it (default depth)")
    parser.add_argument(
        "--server", metavar="URL", help="service to ask (DEPTHLENS_GATEWAY_URL); default: one of its own"
    )
    parser.add_argument(
        "--timeout", type=float, default=_TIMEOUT_S, metavar="SECONDS", help="for each frame (default %(default)g)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only failures")
    group = parser.add_argument_group("parameters of WS /frames")
    for name, about in _PARAMETERS.items():
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"query.{name}", metavar="VALUE", help=about)


def run(options: Options) -> int:
    """Convert the video; the exit status."""
    if find_spec("av") is None:
        return fail("videos need PyAV: pip install 'depthlens[video]'", 2)
    from pydantic import ValidationError

    from service.batch.server import JobSettings
    from service.batch.video import VideoError, frames_in

    out: Path = options["out"]
    try:
        settings = JobSettings(**({"gateway_url": options["server"]} if options["server"] else {}))
        total = frames_in(options["input"])
    except ValidationError:
        return fail("the service's URL begins with http:// or https://", 2)
    except VideoError as error:
        return fail(str(error))
    if os.path.lexists(out):
        if os.path.samefile(options["input"], out):
            return fail(f"{out}: the result would replace the video itself; choose another -o", 2)
        if not options["overwrite"]:
            return fail(f"{out} is there already: --overwrite", 2)
    return asyncio.run(_job(options, settings, total))


async def _job(options: Options, settings: "JobSettings", total: int | None) -> int:
    from service.batch.display import Display
    from service.batch.server import NoService, service_at
    from service.batch.video import Stopped, VideoError
    from service.client import ClientError

    start = time.monotonic()
    stop = threading.Event()
    with Display(total, "waiting for the service", "frame", options["quiet"]) as display, _signals(stop):
        try:
            async with service_at(settings.gateway_url) as url:
                if stop.is_set():
                    raise Stopped
                display.begin(f"video {options['task']}")
                count, failed = await asyncio.to_thread(_convert, options, settings, url, display, stop)
        except Stopped:
            display.say("interrupted; nothing is left of the result")
            return _INTERRUPTED
        except (NoService, VideoError, ClientError) as error:
            display.line(str(error))
            return 1
        except OSError as error:
            display.line(f"{options['out']}: {error.strerror}")
            return 1
    if not options["quiet"]:
        said = f", {failed} failed" if failed else ""
        print(f"depthlens: {count} frames{said} in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return int(failed > 0)


def _convert(
    options: Options, settings: "JobSettings", url: str, display: "Display", stop: threading.Event
) -> tuple[int, int]:
    from service.batch.video import Progress, convert
    from service.client import Client

    given = {name.removeprefix("query."): value for name, value in options.items() if name.startswith("query.")}
    if options["task"] == "stereo" and given["pair"] is None:
        given |= _SIDE_BY_SIDE
    parameters: dict[str, Any] = {"format": "jpeg", "quality": 95, "drop": "none"} | given
    progress = Progress(frame=display.advance, failed=display.line, stopped=stop.is_set)
    with (
        Client(url, api_key=settings.api_key.get_secret_value(), timeout_s=options["timeout"]) as client,
        client.stream(_TASKS[options["task"]], **parameters) as stream,  # type: ignore[arg-type]  # of the table
    ):
        return convert(options["input"], options["out"], stream, progress)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the conversion to stop; a second one ends it at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def ask() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, ask)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
