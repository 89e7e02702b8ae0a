"""What bfloat16 and int8 cost and gain with the default network: judged on real photos with true depth, and timed."""

from pathlib import Path

from service.benchmark.clock import interleave
from service.benchmark.effort import Effort
from service.benchmark.infer import openvino_call
from service.benchmark.limit import thread_counts
from service.benchmark.page import Table
from service.benchmark.pictures import photo
from service.benchmark.progress import say
from service.imaging.geometry import Letterbox
from training.data.truth import depth_truth
from training.evaluation import judge, letterboxed, summarise
from training.export import read_photos
from training.parity import openvino_runtime
from training.quantisation import quantise

from .networks import ROOT, Networks

DATA = ROOT.parent / "shared" / "data"
_PHOTOS = 24


def table(effort: Effort, networks: Networks) -> tuple[Table, dict[str, float]] | None:
    """A row for each precision; None without the collection of truth beside the checkout."""
    if not (DATA / "truth_depth").is_dir():
        return None
    say("precisions on real truth")
    subject = networks.default
    int8 = networks.folder / "default_int8_photos.onnx"
    paths = sorted((DATA / "photos").rglob("*.jpg"))
    chosen = read_photos(paths[:: len(paths) // _PHOTOS][:_PHOTOS])
    quantise(subject.file, int8, [Letterbox.of(*each.shape[:2]).fit(each)[None] for each in chosen])
    files = {"float32": (subject.file, "f32"), "bfloat16": (subject.file, "bf16"), "int8": (int8, "int8")}
    scores = judged(files)
    image = photo(*subject.size)[None]
    times = {}
    for threads in thread_counts():
        calls = {name: openvino_call(file, kind, threads, image) for name, (file, kind) in files.items()}
        times[threads] = interleave(calls, rounds=effort.many)
    rows, figures = [], {}
    for name, found in scores.items():
        row = [f"{found['delta1']:.3f}", f"{found['abs_rel']:.3f}"]
        row += [f"{timings[name].wall_ms:.1f}" for timings in times.values()]
        rows.append((name, *row))
        figures |= {f"{name}, {metric}": found[metric] for metric in ("delta1", "abs_rel")}
    shown = [f"ms, {threads} thread{'s' * (threads > 1)}" for threads in times]
    count, (height, width) = next(iter(scores.values()))["pictures"], subject.size
    note = (
        f"delta1 (more is better) and AbsRel on {count:.0f} photos with true depth, at the served sizes, means over "
        f"pictures and then over sources; wall time at {height} x {width}. int8 as `python -m training quantise` makes "
        f"it, from {_PHOTOS} photos; what it does not quantise is float32."
    )
    header = ("precision", "delta1", "AbsRel", *shown)
    return Table("Precisions of the default network on real truth", header, tuple(rows), note), figures


def judged(files: dict[str, tuple[Path, str]]) -> dict[str, dict[str, float]]:
    """Means of real sources by precision, at the served sizes."""
    outputs = ("inverse_depth", "person")
    runtimes = {
        name: letterboxed(openvino_runtime(file, outputs, "f32" if kind == "int8" else kind))
        for name, (file, kind) in files.items()
    }
    return {name: dict(summarise(scores)["real"]) for name, scores in judge(runtimes, depth_truth(DATA)).items()}
