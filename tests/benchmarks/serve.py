"""What Triton adds: the same network in this process and through gRPC, an ensemble's step included."""

import asyncio
from pathlib import Path

import numpy as np

from service.benchmark import machine
from service.benchmark.clock import interleave, table
from service.benchmark.effort import Effort
from service.benchmark.infer import openvino_request
from service.benchmark.page import Part
from service.benchmark.pictures import photo
from service.benchmark.serving import serving, wait_for_model
from service.inference import TritonClient

from .networks import MODEL, Networks


def run(effort: Effort, networks: Networks) -> Part:
    """The default network by its own name and as the ensemble `focus`, then Depth Anything."""
    with serving(networks.repository) as served, asyncio.Runner() as runner:
        wait_for_model(served.port, MODEL)

        async def connect() -> TritonClient:
            return TritonClient(served.triton)  # its channel belongs to the running loop

        client = runner.run(connect())

        def through(model: str, image: np.ndarray) -> object:
            return runner.run(client.infer(model, image, timeout_s=60))

        tables, figures = [], {}
        with served.at_rest():
            for subject, models, rounds in (
                (networks.default, ("focus_on_depth", "focus"), effort.many),
                (networks.depth_anything, (MODEL,), effort.rounds * 2),
            ):
                image = photo(*subject.size)
                calls = {"in this process": in_process(subject.file, image)}
                calls |= {
                    f"Triton, {model}": lambda model=model, image=image: through(model, image) for model in models
                }
                timings = interleave(calls, rounds=rounds, title=subject.title)
                tables.append(table(f"{subject.title}, uint8 in, float32 out", timings, _NOTE))
                for model in models:
                    figures[f"{model} / in-process"] = 1 / timings[f"Triton, {model}"].ratio
                    figures[f"{model} more ms"] = timings[f"Triton, {model}"].more_ms
        runner.run(client.close())
    return Part("serve", tuple(tables), figures)


_NOTE = (
    "OpenVINO bf16 on all cores, one request at a time; `focus` is an ensemble of one step. CPU ms counts the calling "
    "process only."
)


def in_process(file: Path, image: np.ndarray):
    request = openvino_request(file, "bf16", machine.cores())
    return lambda: [np.array(each) for each in request.infer({"image": image[None]}, share_outputs=True).values()]
