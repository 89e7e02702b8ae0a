"""`make bench-stereo`: streams of pairs that adapt, on the real Triton, into docs/results/stereo_stream.md.

Two drawn worlds of different domains. Each goes through alone, with `adapt=none` and `adapt=mad`; then both at once
with `adapt=mad`, while a third caller, who does not adapt, posts pairs one after the other, as it did before and does
afterwards on a server with nothing else to do. Frames are PNG files, answers float32, all over sockets.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.use("Agg")

from matplotlib import pyplot

from service.client import Client, FrameResult
from service.imaging import codec
from tests.support.served_gateway import Served
from training.data.stereo_pairs import StereoFrame
from training.metrics import disparity_metrics
from training.stereo_evaluation import frames_of, moving_average
from training.stereo_export import export_stereo

from .__main__ import RESULTS, ROOT, machine

Floats = npt.NDArray[np.float32]

DOMAINS = ("night:7", "fog:8")
_WINDOW = 50
_THIRD_ALONE = 60
_SAMPLE_EVERY = 5
_MEBI = 2**20
_COLOURS = ("tab:blue", "tab:orange")


@dataclass(frozen=True)
class Sequence:
    """Frames of a domain, as they are sent and as they are judged."""

    name: str
    frames: list[StereoFrame]
    pairs: list[tuple[bytes, bytes]]

    @classmethod
    def drawn(cls, name: str, count: int) -> "Sequence":
        """Some hundredths of a second a frame."""
        frames = list(frames_of(name, count))
        return cls(name, frames, [(_png(frame.left), _png(frame.right)) for frame in frames])


@dataclass
class Run:
    """What came back of a sequence.

    Attributes:
        maps: float32 (H, W), pixels, one a frame.
        errors: EPE by frame, pixels.
        losses: Photometric, by frame; none without adaptation.
        resets: Of the sequence.
        latencies_s: By frame.
        stub: Resident bytes of the model's process, now and then.
        gateway: The same of the gateway.
    """

    maps: list[Floats] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    resets: int = 0
    latencies_s: list[float] = field(default_factory=list)
    stub: list[int] = field(default_factory=list)
    gateway: list[int] = field(default_factory=list)

    def epe(self, part: slice) -> float:
        """Mean over some frames."""
        return float(np.mean(self.errors[part]))


def stream(served: Served, sequence: Sequence, adapt: str) -> Run:
    """A sequence over a stream of its own, a frame at a time, as a camera would wait for its answer."""
    run = Run()
    stub = served.model_pid("stereo_madnet")
    with (
        Client(_url(served), timeout_s=300) as client,
        client.stream("stereo", drop="none", format="npy", adapt=adapt, timeout=250) as open_stream,
    ):
        for number, (frame, pair) in enumerate(zip(sequence.frames, sequence.pairs, strict=True)):
            start = time.perf_counter()
            open_stream.send(pair)
            answer = open_stream.receive()
            run.latencies_s.append(time.perf_counter() - start)
            assert isinstance(answer, FrameResult), answer
            assert frame.disparity_px is not None
            said = answer.words["adaptation"]
            run.maps.append(answer.values)
            run.errors.append(disparity_metrics(answer.values, frame.disparity_px).epe)
            if said["loss"] is not None:
                run.losses.append(said["loss"])
            run.resets = said["resets"]
            if number % _SAMPLE_EVERY == 0:
                run.stub.append(served.resident_bytes(stub))
                run.gateway.append(served.resident_bytes())
    return run


def third(served: Served, sequence: Sequence, go_on: Callable[[int], bool]) -> list[float]:
    """Seconds that `POST /stereo` with `adapt=none` takes, one after the other."""
    left, right = (_png(picture) for picture in (sequence.frames[0].left, sequence.frames[0].right))
    found: list[float] = []
    with httpx2.Client(base_url=_url(served), timeout=300) as client:
        while go_on(len(found)):
            start = time.perf_counter()
            answer = client.post("/stereo?format=npy", files={"left": left, "right": right})
            found.append(time.perf_counter() - start)
            assert answer.status_code == 200, answer.text
    return found


def _url(served: Served) -> str:
    return "http://{}:{}".format(*served.address)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    return codec.encode_image(pixels, "png")


def at_once(served: Served, sequences: list[Sequence]) -> tuple[list[Run], list[float]]:
    """All of them in streams at once with `adapt=mad`, and how long the third caller waits meanwhile."""
    runs: list[Run | None] = [None] * len(sequences)

    def work(number: int) -> None:
        runs[number] = stream(served, sequences[number], "mad")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(sequences))]
    for thread in threads:
        thread.start()
    latencies = third(served, sequences[0], lambda _: all(thread.is_alive() for thread in threads))
    for thread in threads:
        thread.join()
    return [run for run in runs if run is not None], latencies


@dataclass(frozen=True)
class Findings:
    """Everything that was measured."""

    none: list[Run]
    alone: list[Run]
    together: list[Run]
    quiet_s: list[float]
    busy_s: list[float]
    differences_px: list[float]


def measure(weights: Path, frames: int, folder: Path) -> Findings:
    """A whole run on a server of its own."""
    repository = folder / "repository"
    shutil.copytree(ROOT / "model_repository", repository)
    export_stereo(weights, repository)
    sequences = [Sequence.drawn(name, frames) for name in DOMAINS]
    served = Served(repository, folder / "log", PYTHONPATH=str(ROOT), DEPTHLENS_REQUEST_TIMEOUT_S="300")
    try:
        _until_served(served, sequences[0])
        third(served, sequences[0], lambda count: count < 10)  # warm
        quiet_s = third(served, sequences[0], lambda count: count < _THIRD_ALONE)
        none = [stream(served, sequence, "none") for sequence in sequences]
        alone = [stream(served, sequence, "mad") for sequence in sequences]
        together, busy_s = at_once(served, sequences)
        quiet_s += third(served, sequences[0], lambda count: count < _THIRD_ALONE)
    finally:
        served.process.terminate()
        served.process.wait(60)
    differences = [
        max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(one.maps, two.maps, strict=True))
        for one, two in zip(alone, together, strict=True)
    ]
    return Findings(none, alone, together, quiet_s, busy_s, differences)


def _until_served(served: Served, sequence: Sequence) -> None:
    """The model loads after the server answers for the others."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            third(served, sequence, lambda count: count < 1)
            return
        except AssertionError:
            time.sleep(0.5)
    raise SystemExit("stereo_madnet did not load: " + served.log.read_text()[-2000:])


def report(found: Findings, weights: Path, frames: int, said: str) -> str:
    """The page."""
    first, last = slice(0, _WINDOW), slice(-_WINDOW, None)
    quiet, busy = (np.percentile(each, (50, 95)) * 1000 for each in (found.quiet_s, found.busy_s))
    lines = [
        "# Streams of pairs that the network adapts to",
        f"`make bench-stereo WEIGHTS={weights.name}`: {said}. {frames} frames of 128 x 256 of each of two",
        "drawn worlds, one at night, one in fog, through `WS /frames?task=stereo`, gateway and real Triton.",
        "",
        "![error, loss, memory, latency](stereo_stream.png)",
        "",
        "## Error falls",
        f"EPE in pixels, mean of the first and of the last {_WINDOW} frames. The worlds change along the way, so",
        "the same frames without adaptation stand beside.",
        "",
        f"| sequence | `adapt` | first {_WINDOW} | last {_WINDOW} | loss, first | loss, last | resets | ms a frame |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, none, mad in zip(DOMAINS, found.none, found.alone, strict=True):
        for mode, run in (("none", none), ("mad", mad)):
            losses = [f"{np.mean(run.losses[part]):.4f}" if run.losses else "" for part in (first, last)]
            lines.append(
                f"| {name} | {mode} | {run.epe(first):.3f} | {run.epe(last):.3f} | {losses[0]} | {losses[1]} | "
                f"{run.resets} | {np.median(run.latencies_s) * 1000:.0f} |"
            )
    lines += [
        "",
        "## Memory",
        "Resident MiB of the model's process and of the gateway, over the frames of a stream that adapts alone, and",
        "over those of two at once.",
        "",
        f"| | process | after {_SAMPLE_EVERY + 1} frames | at the end | most |",
        "|---|---|---|---|---|",
    ]
    for label, run in ((f"{DOMAINS[0]} alone", found.alone[0]), ("two at once", found.together[0])):
        for process, sizes in (("model", run.stub), ("gateway", run.gateway)):
            shown = [sizes[min(1, len(sizes) - 1)], sizes[-1], max(sizes)]
            lines.append(f"| {label} | {process} | " + " | ".join(f"{size / _MEBI:.0f}" for size in shown) + " |")
    lines += [
        "",
        "## Two at once",
        "The same sequences in two streams at once: largest difference of a pixel of a frame from the stream alone: "
        + ", ".join(f"{name} {value:.1e} px" for name, value in zip(DOMAINS, found.differences_px, strict=True))
        + ".",
        "",
        "## A third caller",
        "`POST /stereo` without adaptation, one pair after the other; ms.",
        "",
        "| | requests | median | p95 |",
        "|---|---|---|---|",
        f"| alone | {len(found.quiet_s)} | {quiet[0]:.0f} | {quiet[1]:.0f} |",
        f"| while two streams adapt | {len(found.busy_s)} | {busy[0]:.0f} | {busy[1]:.0f} |",
        f"| factor | | {busy[0] / quiet[0]:.2f} | {busy[1] / quiet[1]:.2f} |",
    ]
    return "\n".join(lines) + "\n"


def plot(found: Findings, path: Path) -> None:
    """Error, loss, memory and the third caller's latency."""
    figure, ((errors, losses), (memory, latency)) = pyplot.subplots(2, 2, figsize=(11, 7))
    for name, colour, none, mad in zip(DOMAINS, _COLOURS, found.none, found.alone, strict=True):
        errors.plot(moving_average(none.errors), color=colour, linestyle=":", label=f"{name}, none")
        errors.plot(moving_average(mad.errors), color=colour, label=f"{name}, mad")
        losses.plot(moving_average(mad.losses), color=colour, label=name)
    errors.set(title="error, mean of 9 frames", xlabel="frame", ylabel="EPE, px", ylim=(0, None))
    losses.set(title="photometric loss, mad", xlabel="frame", ylim=(0, None))
    for run, label, style in ((found.alone[0], "one stream", "-"), (found.together[0], "two at once", "--")):
        at = np.arange(len(run.stub)) * _SAMPLE_EVERY
        memory.plot(at, np.array(run.stub) / _MEBI, style, color="tab:red", label=f"model's process, {label}")
        memory.plot(at, np.array(run.gateway) / _MEBI, style, color="tab:gray", label=f"gateway, {label}")
    memory.set(title="resident memory", xlabel="frame", ylabel="MiB", ylim=(0, None))
    for values, label, colour in (
        (found.quiet_s, "alone", "tab:green"),
        (found.busy_s, "while two adapt", "tab:purple"),
    ):
        ordered = np.sort(values) * 1000
        latency.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=colour, label=label)
    latency.set(
        title="third caller, adapt=none", xlabel="ms", ylabel="share of requests answered within", xlim=(0, None)
    )
    for axes in (errors, losses, memory, latency):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--weights", type=Path, required=True, help="checkpoint or safetensors of a served stereo network"
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    said = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.weights, options.frames, Path(folder))
    options.out.mkdir(parents=True, exist_ok=True)
    text = report(found, options.weights, options.frames, said)
    (options.out / "stereo_stream.md").write_text(text)
    plot(found, options.out / "stereo_stream.png")
    print(text)


if __name__ == "__main__":
    main()
