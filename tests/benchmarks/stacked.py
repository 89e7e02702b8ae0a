"""`python -m tests.benchmarks.stacked`: the ensemble `depth_stacked` beside its parts in the real Triton, as a page.

Weights are random unless `--repository` names an exported stack: time does not depend on them.
"""

import argparse
import asyncio
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from service.contract import Size
from service.embedded.process import session_members
from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from training.export import META, Exporter, Request
from training.models import create_model
from training.models.meta_learner import BASES, Stacked
from training.serving import outputs_of

from .__main__ import RESULTS, machine

NAME = "depth_stacked"
PARTS = tuple(f"depth_{part}" for part in (*BASES, META))
_TYPES = {"uint8": "UINT8", "float32": "FP32"}


@contextmanager
def repository(given: Path | None, network: str, size: Size) -> Iterator[Path]:
    """A stack exported for this run, or a copy of the one given: its configurations are changed."""
    with tempfile.TemporaryDirectory(prefix="depthlens-stacked-") as folder:
        target = Path(folder) / "repository"
        if given is not None:
            for name in (NAME, *PARTS):
                shutil.copytree(given / name, target / name)
        else:
            torch.manual_seed(0)
            stack = create_model(network).eval()
            assert isinstance(stack, Stacked)
            Exporter(Request(NAME), (size,), stack.stride, [], target, {}).stack(stack, outputs_of(stack))
        yield target


def set_threads(models: Path, threads: int | None) -> None:
    """How many threads each base network may use; None: every core, as exported."""
    for name in PARTS[:-1]:
        config = models / name / "config.pbtxt"
        text = re.sub(r"parameters \{ key: \"INFERENCE_NUM_THREADS\".*\n", "", config.read_text())
        if threads is not None:
            value = f'{{ string_value: "{threads}" }}'
            text += f'parameters {{ key: "INFERENCE_NUM_THREADS" value {value} }}\n'
        config.write_text(text)


def inputs(name: str, size: Size) -> list[InferInput]:
    """A photo of noise, and for the meta-learner three flat maps of 3 m."""
    arrays = {"image": np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)}
    if name == PARTS[-1]:
        arrays |= {f"{base}_m": np.full((1, *size), 3.0, np.float32) for base in BASES}
    made = []
    for tensor, array in arrays.items():
        given = InferInput(tensor, list(array.shape), _TYPES[array.dtype.name])
        given.set_data_from_numpy(array)
        made.append(given)
    return made


def memory_mb(session: int) -> dict[str, float]:
    """Memory of each model's process: its share of what is shared, and its own."""
    found = {}
    for pid in session_members(session):
        folder = Path(f"/proc/{pid}")
        words = (folder / "cmdline").read_bytes().decode().split("\0")
        name = next((part for part in PARTS if any(f"/{part}/" in word for word in words)), None)
        proportional = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
        if name and proportional:
            found[name] = int(proportional[1]) / 1024
    return found


async def measure(models: Path, size: Size, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each model and of the ensemble, round by round, and megabytes of each process."""
    settings = EmbeddedSettings(models, models=(NAME, *PARTS), canaries=(), exit_timeout_s=0)
    async with Supervisor(settings) as supervisor, InferenceServerClient(supervisor.grpc_url) as client:
        given = {name: inputs(name, size) for name in (*PARTS, NAME)}
        async with asyncio.timeout(300):
            while not await client.is_model_ready(NAME):
                await asyncio.sleep(0.1)
        took: dict[str, list[float]] = {name: [] for name in given}
        for index in range(rounds + 1):
            for name, each in given.items():
                begun = time.perf_counter()
                await client.infer(name, each)
                if index:
                    took[name].append((time.perf_counter() - begun) * 1000)
        assert supervisor.pid is not None
        return took, memory_mb(supervisor.pid)


def table(took: dict[str, list[float]], memory: dict[str, float], about: dict[str, Any]) -> str:
    """Medians, and what the parallel steps save against one after the other."""
    medians = {name: statistics.median(values) for name, values in took.items()}
    rows = ["| model | median ms | 95th ms | MB of its process | M parameters | GFLOP |", "|---|---|---|---|---|---|"]
    for name, values in took.items():
        late = sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]
        found = about[name]
        held = f"{memory[name]:.0f}" if name in memory else "none of its own"
        rows.append(
            f"| `{name}` | {medians[name]:.1f} | {late:.1f} | {held} | {found['parameters'] / 1e6:.1f} | "
            f"{found['gflop']['value']:.2f} |"
        )
    bases = [medians[name] for name in PARTS[:-1]]
    one_by_one, side_by_side = sum(bases) + medians[PARTS[-1]], max(bases) + medians[PARTS[-1]]
    rows.append(
        f"\nThe parts one after the other: {one_by_one:.1f} ms. The slowest base network and the meta-learner, which "
        f"is the least with a core for each: {side_by_side:.1f} ms. The ensemble: {medians[NAME]:.1f} ms, "
        f"{one_by_one / medians[NAME]:.2f} times as fast as one after the other.\n"
    )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="stacked_meta_rgbd", help="of training.models; stacked_..._tiny to try it")
    parser.add_argument("--repository", type=Path, help="an exported stack instead")
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "stacked.md")
    options = parser.parse_args()
    size, said = (options.height, options.width), machine()
    sections = []
    with repository(options.repository, options.network, size) as models:
        about = {name: json.loads((models / name / "1" / "metadata.json").read_text()) for name in (*PARTS, NAME)}
        for title, threads in (("Every network may use every core", None), ("One thread for each base network", 1)):
            set_threads(models, threads)
            took, memory = asyncio.run(measure(models, size, options.rounds))
            sections.append(f"## {title}\n\n{table(took, memory, about)}")
    precision = ", ".join(f"{name} {'bfloat16' if about[name]['bf16'] else 'float32'}" for name in PARTS)
    text = (
        f"# The ensemble depth_stacked beside its parts\n\n`python -m tests.benchmarks.stacked`: {said}. One request "
        f"at a time over gRPC, {size[0]} x {size[1]} pixels, {options.rounds} interleaved rounds, "
        f"{'an exported stack' if options.repository else options.network + ', random weights'}; "
        f"{precision} where the CPU has bfloat16. The ensemble's three base networks are steps that Triton "
        "starts at once, each in a process of its own.\n\n" + "\n".join(sections)
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
