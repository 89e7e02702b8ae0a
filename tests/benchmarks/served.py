"""`python -m tests.benchmarks.served`: every monocular system, full size, through `POST /depth` and the real Triton.

One after the other each network is made with random weights (those of published checkpoints are written in the
authors' own layout and read by `python -m training import`), exported with parity, put beside the default network in a
repository of its own, loaded by `depthlens serve`, and asked over HTTP. What comes back must be what the network in
torch says of the same photo. A page holds what was found.
"""

import argparse
import io
import json
import os
import re
import shutil
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from service.benchmark.pictures import photo
from service.contract import Size
from service.imaging.geometry import Letterbox
from tests.e2e.train_smoke import served as service
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import ImportedConfig
from training.export import Provenance, Request, export, trained_network
from training.importers.networks import IMPORTERS, import_checkpoint
from training.models import create_model
from training.parity import METRIC_BF16, TOLERANCES, difference, eager
from training.serving import Traits, outputs_of
from training.serving import served as as_served

from .__main__ import RESULTS, ROOT, machine

HEIGHT, WIDTH = 720, 960
_LOAD_TIMEOUT_S = 600
_REQUEST_TIMEOUT_S = 120
_MATTE_OFF = 0.03
"""Of probability, in the mean; a matte is cleaned and has 8 bits."""

HEAD = """# Every monocular system, served

`python -m tests.benchmarks.served`: {machine}. Weights are random, so the maps show nothing: what is shown is that the
network of full size is exported with parity, loaded by the embedded Triton beside the default one, and answers
`POST /depth?model=...` with a valid 16-bit PNG that holds what the network in torch says of the same photo. Weights of
published checkpoints were written in their authors' layout and went through `python -m training import`. One photo of
{width} x {height} as PNG at a time, median of {rounds} that no cache had seen; `load` is the machine's at the time, and
times under a load above its cores are far longer than on a quiet one. Errors are shares of the map's largest value;
bfloat16 is used where the CPU has it and the export found it near enough. A stack's parity is its worst part's, and
its memory that of its four processes.

"""


@dataclass(frozen=True)
class System:
    """A network, and how it is served.

    Attributes:
        title: In the table.
        network: Of `training.models`.
        model: Name it is served under.
        size: Of its input.
        imported: Whether its weights come in a published file's layout.
    """

    title: str
    network: str
    model: str
    size: Size
    imported: bool = False


SYSTEMS = (
    System("FocusOnDepth, ViT-B/16 (seed 0)", "focus_on_depth_vit_base", "focus_vit_base", (384, 384), True),
    System("FocusOnDepth, ViT-L/16 (seed 0)", "focus_on_depth_vit_large", "focus_vit_large", (384, 384), True),
    System("ResNet50 encoder-decoder (seed 1)", "resnet50_encoder_decoder", "depth_resnet50", (224, 224)),
    System("CNN + Transformer (seed 2)", "cnn_transformer", "depth_cnn_transformer", (224, 224)),
    System("Student of a teacher (seed 2)", "cnn_student", "depth_student", (224, 224)),
    System("Stack: AdaBins, BTS, LapDepth, U-Net (seed 3)", "stacked_meta_rgbd", "depth_stacked", (288, 384)),
    System("Depth Anything V2 Small", "depth_anything_v2_small", "depth_anything", (392, 518), True),
    System("DPT-Hybrid", "dpt_hybrid", "depth_dpt_hybrid", (384, 384), True),
    System("DPT-Large", "dpt_large", "depth_dpt_large", (384, 384), True),
)


@dataclass(frozen=True)
class Answer:
    """One answer of the service."""

    body: bytes
    headers: Message
    took_ms: float

    def stage_ms(self, stage: str) -> float:
        """Of `Server-Timing`."""
        found = re.search(rf"\b{stage};dur=([0-9.]+)", str(self.headers["Server-Timing"]))
        if found is None:
            raise LookupError(f"no stage {stage} in {self.headers['Server-Timing']}")
        return float(found[1])


class ServedError(RuntimeError):
    """A system did not come through; the message says where."""


def check(condition: bool, message: str) -> None:
    """Raises ServedError unless `condition` holds."""
    if not condition:
        raise ServedError(message)


def make_checkpoint(system: System, folder: Path) -> Path:
    """A checkpoint of the network with random weights, seed 0."""
    torch.manual_seed(0)
    network = create_model(system.network).eval()
    path = folder / "last.pt"
    if system.imported:
        published = folder / f"{system.network}.pth"
        torch.save(in_their_layout(network, system.network), published)
        save_checkpoint(path, import_checkpoint(published, system.network))
        return path
    state = network.state_dict()
    config = ImportedConfig(task="imported", model=system.network, imported_file="none, random", imported_sha256="")
    save_checkpoint(path, Checkpoint(0, state, state, {}, config, "", {}))
    return path


def in_their_layout(network: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """A network's tensors under the names of its authors' file, the first of the layouts that `import` knows."""
    layout = IMPORTERS[name][0]
    found = {}
    for ours, tensor in network.state_dict().items():
        theirs = layout.there(ours)
        found |= dict(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    return found


def png_of(pixels: np.ndarray) -> bytes:
    """The picture as it is, so that service and torch see the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def ask(url: str, path: str, body: bytes) -> Answer:
    """One POST; ServedError for anything but 200."""
    headers = {"Content-Type": "image/png", "X-Request-Timeout": str(_REQUEST_TIMEOUT_S)}
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=300) as answer:
            return Answer(answer.read(), answer.headers, (time.perf_counter() - begun) * 1000)
    except urllib.error.HTTPError as error:
        raise ServedError(f"POST {path} answered {error.code}: {error.read()[:500]!r}") from error


def wait_until_loaded(url: str, model: str) -> None:
    """Until `GET /models` says that the model is ready."""
    deadline = time.monotonic() + _LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/models", timeout=60) as answer:
            listed = json.loads(answer.read())["models"]
        if any(each["name"] == model and each["ready"] for each in listed):
            return
        time.sleep(0.2)
    raise ServedError(f"{model} was not ready after {_LOAD_TIMEOUT_S} s")


def memory_mb(repository: Path, models: Sequence[str]) -> float:
    """Of the models' processes together: their own memory and their share of what is shared."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if any(f"{repository}/{model}/" in word for model in models for word in words):
                found = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
        except OSError:
            continue  # it has ended
    return total / 1024


def said_by_torch(network: nn.Module, pixels: np.ndarray, size: Size) -> list[np.ndarray]:
    """Each output of the network at the photo's size, (1, H, W) float32."""
    letterbox = Letterbox.of(*pixels.shape[:2], size)
    found = eager(as_served(network))(letterbox.fit(pixels)[None])
    return [letterbox.unfit(values[0])[None] for values in found]


def check_png(png: Answer, values: np.ndarray) -> None:
    """The 16-bit PNG holds the numbers of the npy file, to half a step."""
    with Image.open(io.BytesIO(png.body)) as image:
        stored = np.asarray(image)
        check(image.format == "PNG" and image.mode.startswith("I"), f"{image.format} {image.mode}, not a 16-bit PNG")
    scale, offset = float(png.headers["X-Depth-Scale"]), float(png.headers["X-Depth-Offset"])
    check(stored.shape == values.shape, f"the PNG has the size {stored.shape}, the npy file {values.shape}")
    worst = float(np.abs(stored * scale + offset - values).max())
    check(worst <= 0.51 * scale + 1e-4 * float(values.max()), f"the PNG is {worst} off, its step is {scale}")


def go_through(system: System, rounds: int, folder: Path) -> dict[str, Any]:
    """Made, exported, served, asked; what was found, as plain values.

    Raises:
        ServedError: An answer is not what the network in torch says.
        TrainingError: The export failed.
    """
    repository = folder / "repository"
    shutil.copytree(ROOT / "model_repository", repository)
    (repository / "focus" / "1").mkdir(exist_ok=True)  # git keeps no empty folder
    checkpoint = load_checkpoint(make_checkpoint(system, folder))
    pictures = [photo(HEIGHT, WIDTH, seed) for seed in range(rounds + 1)]
    begun = time.monotonic()
    request = Request(system.model, (system.size,), traits=Traits(system.title, "random weights"))
    metadata = export(checkpoint, Provenance("none, random", "", {}), pictures[:1], repository, request)
    export_s = time.monotonic() - begun
    parts = list(metadata.get("steps", [system.model]))
    about = [json.loads((repository / part / "1" / "metadata.json").read_text()) for part in parts]
    network = trained_network(checkpoint)
    outputs = [tensor.name for tensor in outputs_of(network)]
    wanted = said_by_torch(network, pictures[0], system.size)
    with service(repository, folder / "serve.log") as (url, _):
        wait_until_loaded(url, system.model)
        values = np.load(io.BytesIO(ask(url, f"/depth?model={system.model}&format=npy", png_of(pictures[0])).body))
        png = ask(url, f"/depth?model={system.model}", png_of(pictures[0]))
        check(png.headers["X-Model"] == system.model, f"answered by {png.headers['X-Model']}")
        check_png(png, values)
        answers = [ask(url, f"/depth?model={system.model}", png_of(picture)) for picture in pictures[1:]]
        held = memory_mb(repository, parts)
        if "person" in outputs:
            matte = ask(url, f"/segmentation?model={system.model}", png_of(pictures[0]))
            seen = np.asarray(Image.open(io.BytesIO(matte.body)), np.float32)[None] / 255
            off = float(np.abs(seen - wanted[1]).mean())
            check(off < _MATTE_OFF, f"the matte is {off:.3f} of probability off in the mean")
    bf16 = any(part["bf16"] for part in about) and "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    errors = difference((values[None].astype(np.float32),), (wanted[0],), outputs[:1])
    metric = outputs[0] == "depth_m"
    accepted = TOLERANCES["openvino_f32"] if not bf16 else METRIC_BF16 if metric else TOLERANCES["openvino_bf16"]
    check(errors.within(accepted), f"{system.model} is {errors} off, accepted {accepted}")
    precise = [part["parity"]["openvino_f32"]["depth_largest"] for part in about]
    return {
        "title": system.title,
        "model": system.model,
        "size": "x".join(map(str, system.size)),
        "parameters": metadata["parameters"],
        "gflop": metadata["gflop"]["value"],
        "parity": max(precise),
        "export_s": export_s,
        "precision": "bfloat16" if bf16 else "float32",
        "request_ms": statistics.median(answer.took_ms for answer in answers),
        "infer_ms": statistics.median(answer.stage_ms("infer") for answer in answers),
        "largest": errors.depth_largest,
        "mean": errors.depth_mean,
        "memory_mb": held,
        "load": os.getloadavg()[0],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each system."""
    lines = [
        "| network | `?model=` | input | M parameters | GFLOP | parity, float32 | computed in | served against torch: "
        "largest, mean | ms of a request | of these in Triton | MB | s to export | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['title']} | `{row['model']}` | {row['size']} | {row['parameters'] / 1e6:.1f} | {row['gflop']:.1f} "
            f"| {row['parity']:.0e} | {row['precision']} | {row['largest']:.0e}, {row['mean']:.0e} "
            f"| {row['request_ms']:.0f} | {row['infer_ms']:.0f} | {row['memory_mb']:.0f} | {row['export_s']:.0f} "
            f"| {row['load']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these alone, e.g. depth_resnet50")
    parser.add_argument("--rounds", type=int, default=5, help="photos that are timed")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "served", help="what is measured is kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "served.md")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    options.work.mkdir(parents=True, exist_ok=True)
    said, rows = machine(), []
    for system in SYSTEMS:
        kept = options.work / f"{system.model}.json"
        if not kept.is_file() and (options.only is None or system.model in options.only):
            with tempfile.TemporaryDirectory(prefix="depthlens-served-") as folder:
                kept.write_text(json.dumps(go_through(system, options.rounds, Path(folder)), indent=2) + "\n")
        if kept.is_file():
            rows.append(json.loads(kept.read_text()))
            print(rows[-1], flush=True)
    text = HEAD.format(machine=said, height=HEIGHT, width=WIDTH, rounds=options.rounds) + table(rows) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
