"""The whole way of a network in small: rendered, trained, stopped, resumed, evaluated, exported, served, asked.

Every part is the command a user would type, in a process of its own; everything is written below a temporary folder.
After that every other recipe goes the same way in short: `every_recipe.py`.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "training/configs/smoke.yaml"
SCENES = 40
SIZE = "96x128"
LIMIT_S = 600
"""Of all parts together, on two free cores; a slower machine is told, not failed."""

_PART_TIMEOUT_S = 900
_READY_TIMEOUT_S = 120


class SmokeError(RuntimeError):
    """A part did not do what it should; the message holds the end of its output."""


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - start

    def table(self) -> str:
        total = sum(self.parts.values())
        rows = [*self.parts.items(), ("in all", total)]
        verdict = "" if total <= LIMIT_S else f"\nmore than the {LIMIT_S} s that two free cores take"
        return "\n".join(f"{name:<32}{seconds:7.1f} s" for name, seconds in rows) + verdict


def check(condition: bool, message: str) -> None:
    """Raises SmokeError unless `condition` holds."""
    if not condition:
        raise SmokeError(message)


def training(*arguments: object) -> str:
    """What `python -m training` printed; SmokeError when it fails."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PART_TIMEOUT_S, check=False)
    check(done.returncode == 0, f"`{' '.join(command[1:])}` ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def train_arguments(scenes: Path, out: Path) -> list[object]:
    """Of a run of the recipe."""
    # one thread: pictures this small have no work for two, and on a busy machine two wait for one another
    return ["train", "--config", RECIPE, "--scenes", scenes, "--out", out, "--threads", 1]


def train_and_kill(scenes: Path, out: Path) -> None:
    """Starts a run and kills it, without warning, as soon as it has written its first checkpoint."""
    command = [sys.executable, "-m", "training", *map(str, train_arguments(scenes, out))]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + _PART_TIMEOUT_S
            while not (out / "last.pt").is_file():
                log.seek(0)
                check(process.poll() is None, f"training ended before its first checkpoint:\n{log.read()[-3000:]}")
                check(time.monotonic() < deadline, "no checkpoint in time")
                time.sleep(0.02)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def state_of(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's values, tensors of all its state dicts by path."""
    import torch

    values = torch.load(checkpoint, map_location="cpu", weights_only=True)
    tensors = {f"{part}.{key}": tensor for part in ("model", "ema") for key, tensor in values[part].items()}
    moments = values["optimizer"]["state"]
    tensors |= {f"optimizer.{i}.{key}": value for i, state in moments.items() for key, value in state.items()}
    return {"step": values["step"], "tensors": tensors}


def assert_same_bits(one: Path, other: Path) -> None:
    """Weights, averaged weights and optimiser state of two checkpoints are equal, to the bit."""
    import torch

    a, b = state_of(one), state_of(other)
    check(a["step"] == b["step"], f"{one} ends at step {a['step']}, {other} at {b['step']}")
    check(a["tensors"].keys() == b["tensors"].keys(), "the checkpoints hold different tensors")
    different = [key for key, tensor in a["tensors"].items() if not torch.equal(tensor, b["tensors"][key])]
    check(not different, f"{len(different)} tensors differ after the resumed run, first: {different[:1]}")


def copy_repository(target: Path) -> Path:
    """The committed model repository without its networks."""
    shutil.copytree(ROOT / "model_repository", target, ignore=shutil.ignore_patterns("model.onnx", "metadata.json"))
    (target / "focus" / "1").mkdir(exist_ok=True)
    return target


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def served(repository: Path, log: Path) -> Iterator[tuple[str, int]]:
    """`depthlens serve` on a repository: its address and process; stopped by SIGTERM, which must end it well."""
    port = free_port()
    environment = os.environ | {"DEPTHLENS_MODEL_REPOSITORY": str(repository), "DEPTHLENS_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not is_ready(url):
            check(process.poll() is None, f"the service ended:\n{log.read_text()[-3000:]}")
            check(time.monotonic() < deadline, f"not ready in {_READY_TIMEOUT_S} s:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield url, process.pid
        process.send_signal(signal.SIGTERM)
        check(process.wait(60) == 0, f"the service ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def is_ready(url: str) -> bool:
    """Whether the first inference has answered."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask_depth(url: str, photo: bytes, model: str = "focus_on_depth") -> tuple[np.ndarray, Message]:
    """The values of `POST /depth`, and its headers."""
    request = urllib.request.Request(f"{url}/depth?model={model}&format=npy", photo, {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.load(io.BytesIO(answer.read())), answer.headers
    except urllib.error.HTTPError as error:
        raise SmokeError(f"POST /depth answered {error.code}: {error.read()[:500]!r}") from error


def loads_torch(pid: int) -> bool:
    """Whether a process has mapped a library of torch."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def expected_depth(checkpoint: Path, photo: Path) -> np.ndarray:
    """What the checkpoint itself sees in a photo, at the photo's size."""
    from training.checkpoint import load_checkpoint
    from training.data.sample import read_rgb
    from training.evaluation import predictor
    from training.export import served_network

    return predictor(served_network(load_checkpoint(checkpoint)))(read_rgb(photo))[0]


def every_recipe(scenes: Path, out: Path, repository: Path) -> None:
    """All recipes in small, in two processes, what each took line by line."""
    command = [sys.executable, str(Path(__file__).with_name("every_recipe.py")), *map(str, (scenes, out, repository))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, *folders], cwd=ROOT, env=environment)
        for folders in (["configs/"], ["compare/", "designs/"])
    ]
    try:
        statuses = [worker.wait(4 * _PART_TIMEOUT_S) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    check(not any(statuses), f"a recipe did not come to its end; see its log below {out}")


def every_network(repository: Path, photo: bytes, log: Path) -> None:
    """Each exported network answers by its name."""
    names = sorted(path.parent.parent.name for path in repository.glob("depth_*/1/metadata.json"))
    with served(repository, log) as (url, _):
        for name in (name for name in names if not name.endswith("_meta")):  # which a photo alone cannot ask
            values, headers = ask_when_loaded(url, photo, name)
            check(headers["X-Model"] == name and bool(np.isfinite(values).all()), f"{name} answered {headers}")
            print(f"{name}: {headers['X-Depth-Kind']}, {values.min():.3f} to {values.max():.3f}", flush=True)


def ask_when_loaded(url: str, photo: bytes, model: str) -> tuple[np.ndarray, Message]:
    """`ask_depth`, as soon as the model is loaded."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            return ask_depth(url, photo, model)
        except SmokeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def run(folder: Path, clock: Clock) -> None:
    """All parts."""
    scenes, whole, stopped = folder / "scenes", folder / "whole", folder / "stopped"
    with clock.part(f"render {SCENES} scenes"):
        print(training("synth", "--count", SCENES, "--size", SIZE, "--out", scenes, "--workers", 2), end="")
    with clock.part("train without a stop"):
        print(training(*train_arguments(scenes, whole)), end="")
    with clock.part("train, killed at a checkpoint"):
        train_and_kill(scenes, stopped)
        step = state_of(stopped / "last.pt")["step"]
        last = state_of(whole / "last.pt")["step"]
        check(step < last, f"the killed run had reached step {step} of {last}: nothing left to resume")
    with clock.part(f"resume from step {step}"):
        training(*train_arguments(scenes, stopped), "--resume")
        assert_same_bits(whole / "last.pt", stopped / "last.pt")
    checkpoint, numbers = stopped / "last.pt", folder / "metrics.json"
    judged = ("--checkpoint", checkpoint, "--scenes", scenes)
    with clock.part("evaluate on held-out scenes"):
        print(training("evaluate", *judged, "--out", numbers, "--threads", 1), end="")
        (entry,) = json.loads(numbers.read_text())["networks"]
        row = entry["scenes"]["all"]
        people = row.get("iou", row.get("false_person", -1.0))  # the held-out scenes may show nobody
        check(0 <= row["delta1"] <= 1 and 0 <= people <= 1, f"not judged on depth and people: {row}")
    repository = copy_repository(folder / "repository")
    with clock.part("export, compared with torch"):
        arguments = ("--checkpoint", checkpoint, "--repository", repository, "--metrics", numbers, "--threads", 1)
        found = json.loads(training("export", *arguments))
        print({runtime: errors["depth_largest"] for runtime, errors in found["parity"].items()})
    photo = next(path for path in sorted(scenes.rglob("*.jpg")))
    with clock.part("serve with Triton, ask for depth"), served(repository, folder / "serve.log") as (url, pid):
        values, headers = ask_depth(url, photo.read_bytes())
        check(not loads_torch(pid), "the gateway's process has loaded torch")
    with clock.part("compare the answer with torch"):
        wanted = expected_depth(checkpoint, photo)
        check(values.shape == wanted.shape, f"the answer has the size {values.shape}, the photo {wanted.shape}")
        likeness = float(np.corrcoef(values.ravel(), wanted.ravel())[0, 1])
        print(f"model {headers['X-Model']}, version {headers['X-Model-Version']}: correlation {likeness:.4f}")
        # the service may run in bfloat16, which changes scale and shift a little but not the picture
        check(likeness > 0.98, f"the served answer has a correlation of {likeness:.3f} with the checkpoint's")
    with clock.part("every recipe in small"):
        every_recipe(scenes, folder / "every", repository)
    with clock.part("serve every network, ask each"):
        every_network(repository, photo.read_bytes(), folder / "serve_every.log")


def main() -> int:
    """Exit status: 0 when every part did what it should."""
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="depthlens-smoke-") as folder:
        try:
            run(Path(folder), clock)
        except (SmokeError, subprocess.TimeoutExpired) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        finally:
            print(clock.table(), flush=True)
    print("PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
