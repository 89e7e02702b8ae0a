"""A model that does as it is told: waits, fails, answers nonsense or dies, and notes when it was given up.

It stands in `focus_on_depth`'s place in a real Triton, one image at a time, with the ensemble `focus` before it. Its
strings are a file it reads at every request; its notes are lines `<monotonic seconds> <event>` in another.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.embedded_triton import REPOSITORY, make_python_repository

_MODEL = """
import json, os, pathlib, time
import numpy as np
import triton_python_backend_utils as pb_utils

DIRECTORY = pathlib.Path("PUPPET_DIRECTORY")
CANARY = (64, 64)


def note(event):
    with (DIRECTORY / "notes").open("a") as notes:
        notes.write(f"{time.monotonic():.4f} {event}\\n")


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        told = json.loads((DIRECTORY / "strings.json").read_text())
        if image.shape[1:3] == CANARY and not told["canary"]:
            return self.respond(image)
        note("begun")
        if told["dies"]:
            os._exit(1)
        start = time.monotonic()
        while told["holds"] or time.monotonic() - start < told["delay_s"]:
            if request.is_cancelled():
                note("cancelled")
                error = pb_utils.TritonError("nobody waits", pb_utils.TritonError.CANCELLED)
                return pb_utils.InferenceResponse(error=error)
            time.sleep(0.005)
            told = json.loads((DIRECTORY / "strings.json").read_text())
        note("ended")
        if told["fails"]:
            raise RuntimeError("a secret of /opt/weights/model.py: triton_python_backend_shm_region_7 in Triton 2.51.0")
        if told["misshapes"]:
            image = image[:, :-1]
        return self.respond(image, float("nan") if told["nan"] else 0.0)

    def respond(self, image, first=0.0):
        depth = np.array(image.sum(axis=3) / 765, np.float32)
        depth[0, 0, 0] += first
        person = np.array(image[..., 0] > 127, np.float32)
        person[0, 0, 0] += first
        tensors = [pb_utils.Tensor("inverse_depth", depth), pb_utils.Tensor("person", person)]
        return pb_utils.InferenceResponse(tensors)
"""

_IDLE: dict[str, Any] = {
    "delay_s": 0.0,
    "holds": False,
    "fails": False,
    "nan": False,
    "misshapes": False,
    "dies": False,
    "canary": False,
}


@dataclass(frozen=True, slots=True)
class Puppet:
    """The strings and the notes; `repository` is what Triton serves."""

    directory: Path

    @property
    def repository(self) -> Path:
        """Of the models `focus_on_depth` and `focus`."""
        return self.directory / "repository"

    @classmethod
    def make(cls, directory: Path, instances: int = 1) -> "Puppet":
        """Write the repository and idle strings into a new `directory`."""
        directory.mkdir(parents=True)
        puppet = cls(directory)
        make_python_repository(puppet.repository, _MODEL.replace("PUPPET_DIRECTORY", str(directory)))
        network = puppet.repository / "focus_on_depth" / "config.pbtxt"
        network.write_text(re.sub(r"count: \d+", f"count: {instances}", network.read_text()))
        ensemble = puppet.repository / "focus"
        (ensemble / "1").mkdir(parents=True)
        config = (REPOSITORY / "focus" / "config.pbtxt").read_text()
        (ensemble / "config.pbtxt").write_text(config.replace("max_batch_size: 8", "max_batch_size: 1"))
        puppet.reset()
        return puppet

    def tell(self, **strings: Any) -> None:
        """What it does from now on, all else as when idle.

        Args:
            strings: `delay_s` before each answer; `holds` until told otherwise; `fails` with an error that holds
                secrets; `nan` in the answer; `misshapes` it; `dies` at the next request; `canary`: does so to readiness
                inferences too.
        """
        assert strings.keys() <= _IDLE.keys(), f"no such strings: {strings.keys() - _IDLE.keys()}"
        new = self.directory / "strings.new"
        new.write_text(json.dumps(_IDLE | strings))
        new.rename(self.directory / "strings.json")

    def reset(self) -> None:
        """Idle, and no notes."""
        self.tell()
        (self.directory / "notes").write_text("")

    def notes(self, event: str) -> list[float]:
        """`time.monotonic()` seconds of every `begun`, `ended` or `cancelled`."""
        lines = [line.split() for line in (self.directory / "notes").read_text().splitlines()]
        return [float(line[0]) for line in lines if line[1:] == [event]]
