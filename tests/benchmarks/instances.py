"""One instance of a network and two on the same cores, and batches; two replicas of everything: `make bench-scale`."""

import asyncio
import shutil
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from service.benchmark import machine
from service.benchmark.clock import interleave, quartiles
from service.benchmark.effort import Effort
from service.benchmark.infer import openvino_request
from service.benchmark.page import Part, Table
from service.benchmark.pictures import photo
from service.benchmark.progress import say
from service.benchmark.serving import Burst, burst, serving, wait_for_model
from service.inference import TritonClient

from .networks import MODEL, Networks, Subject

LAYOUTS = {"one instance of one thread": (1, 1), "two instances of one thread": (2, 1), "one of all threads": (1, 0)}
BATCHES = (1, 2, 4, 8)
CALLERS = 4
_LEAST_S = 3.0
"""Of load where one answer takes a good part of a second."""


def run(effort: Effort, networks: Networks) -> Part:
    """Instances in three servers that take turns, then batches in this process."""
    tables, figures = [], {}
    subjects = (networks.depth_anything, networks.default)
    with ExitStack() as stack:
        urls = {}
        for name, (instances, threads) in LAYOUTS.items():
            folder = networks.folder / f"instances_{instances}_{threads}"
            laid_out(networks.repository, folder, instances, threads or machine.cores())
            served = stack.enter_context(serving(folder))
            wait_for_model(served.port, MODEL)
            stack.enter_context(served.at_rest())
            urls[name] = served.triton
        for subject in subjects:
            model = MODEL if subject.key == "da" else "focus_on_depth"
            seconds = max(effort.seconds, _LEAST_S) if subject.key == "da" and effort.rounds > 1 else effort.seconds
            say(f"{subject.title}: {effort.rounds} rounds, at least {effort.rounds * len(urls) * seconds:.0f} s")
            found = asyncio.run(_rates(urls, model, subject, effort.rounds, seconds))
            tables.append(_table(subject, found))
            one, two = (found[name] for name in list(LAYOUTS)[:2])
            ratios = [mine.rate / theirs.rate for theirs, mine in zip(one, two, strict=True)]
            figures[f"{subject.key}, two instances / one"] = statistics.median(ratios)
    tables += [batches(subject, effort) for subject in subjects]
    return Part("scale", tuple(tables), figures)


def laid_out(repository: Path, folder: Path, instances: int, threads: int) -> None:
    """A copy of the repository whose networks have so many instances of so many threads."""
    shutil.copytree(repository, folder)
    for model in (MODEL, "focus_on_depth"):
        config = folder / model / "config.pbtxt"
        said = config.read_text().replace("KIND_CPU count: 1", f"KIND_CPU count: {instances}")
        if f"KIND_CPU count: {instances}" not in said:
            raise LookupError(f"{model} states its instances otherwise than expected")
        value = f'{{ string_value: "{threads}" }}'
        config.write_text(said + f'\nparameters {{ key: "INFERENCE_NUM_THREADS" value {value} }}\n')


async def _rates(
    urls: Mapping[str, str], model: str, subject: Subject, rounds: int, seconds: float
) -> dict[str, list[Burst]]:
    image = photo(*subject.size)
    clients = {name: TritonClient(url) for name, url in urls.items()}
    found: dict[str, list[Burst]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, client in clients.items():
            jobs = [lambda client=client: client.infer(model, image, timeout_s=60)] * CALLERS
            found[name].append(await burst(jobs, seconds))
    for client in clients.values():
        await client.close()
    return found


def _table(subject: Subject, found: dict[str, list[Burst]]) -> Table:
    peer = next(iter(found.values()))
    rows = []
    for name, bursts in found.items():
        low, middle, high = quartiles([mine.rate / other.rate for other, mine in zip(peer, bursts, strict=True)])
        rate = statistics.median(each.rate for each in bursts)
        median_ms = statistics.median(each.median_ms for each in bursts)
        rows.append((name, f"{rate:.2f}", f"{median_ms:.0f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"))
    header = ("layout", "images/s", "median ms", "of the first", "quartiles")
    note = f"{CALLERS} callers in closed loop over gRPC, uint8 in, on {machine.cores()} cores; the servers take turns."
    return Table(f"Instances, {subject.title}", header, tuple(rows), note)


def batches(subject: Subject, effort: Effort) -> Table:
    """Milliseconds of an image in batches."""
    request = openvino_request(subject.file, "bf16", machine.cores())
    images = {count: np.stack([photo(*subject.size, seed) for seed in range(count)]) for count in BATCHES}
    calls = {
        f"{count}": lambda given=given: request.infer({"image": given}, share_inputs=True)
        for count, given in images.items()
    }
    timings = interleave(calls, rounds=max(1, effort.rounds // 2), title=f"batches, {subject.title}")
    rows = [
        (name, f"{each.wall_ms:.1f}", f"{each.wall_ms / int(name):.1f}", f"{each.ratio * int(name):.2f}")
        for name, each in timings.items()
    ]
    header = ("batch", "ms", "ms an image", "images as fast as alone")
    return Table(f"Batches, {subject.title}", header, tuple(rows), "OpenVINO bf16, all cores, in this process.")
