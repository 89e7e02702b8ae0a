"""Tiny networks, copied repositories and a look at a launch's processes, for the tests with the real Triton."""

import asyncio
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.contract import MODELS, Size
from service.embedded.process import Ports, session_members

REPOSITORY = Path(__file__).parents[2] / "model_repository"


def admin_file(repository: Path) -> Path:
    """Where the session's server puts the secret that opens its model control."""
    return repository.with_name("triton-admin")


@dataclass(frozen=True)
class ServedTriton:
    """The session's server: tiny networks behind the committed configs."""

    ports: Ports
    pid: int
    repository: Path

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"


def write_tiny_network(path: Path, scale: float = 1.0) -> None:
    """The contract's tensors, by hand: inverse_depth = scale (R + G + B) / 765, person = 1 where R > 127.5."""
    constants = {"channel": [3], "third_of_255": scale / 765, "red": 0, "half": 127.5}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["pixels", "channel"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "third_of_255"], ["inverse_depth"]),
        helper.make_node("Gather", ["pixels", "red"], ["reds"], axis=3),
        helper.make_node("Greater", ["reds", "half"], ["is_person"]),
        helper.make_node("Cast", ["is_person"], ["person"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "height", "width"])
            for name in ("inverse_depth", "person")
        ],
        [
            numpy_helper.from_array(np.array(value, np.int64 if name in ("channel", "red") else np.float32), name)
            for name, value in constants.items()
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def expected_outputs(image: np.ndarray) -> dict[str, np.ndarray]:
    """What the tiny network answers for a uint8 (height, width, 3) image."""
    return {
        "inverse_depth": (image.astype(np.float32).sum(axis=2) / 765).astype(np.float32),
        "person": (image[..., 0] > 127.5).astype(np.float32),
    }


def noise(size: Size, seed: int = 0) -> np.ndarray:
    """A random uint8 image of a size."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_repository(directory: Path, *, precision: str | None = None) -> Path:
    """A copy of the committed repository's configs, with tiny networks in place of the real ones.

    `precision` is added to the networks' configs as `INFERENCE_PRECISION_HINT`.
    """
    for spec in MODELS.values():
        copy = directory / spec.name
        (copy / "1").mkdir(parents=True)
        config = (REPOSITORY / spec.name / "config.pbtxt").read_text()
        if spec.kind == "network":
            write_tiny_network(copy / "1" / "model.onnx")
            if precision:
                config += (
                    f'\nparameters {{ key: "INFERENCE_PRECISION_HINT" value {{ string_value: "{precision}" }} }}\n'
                )
        (copy / "config.pbtxt").write_text(config)
    return directory


def make_python_repository(directory: Path, model_py: str) -> Path:
    """`focus_on_depth` alone, with its committed tensors, but answered by the given `model.py`, one image at a time."""
    model = directory / "focus_on_depth"
    (model / "1").mkdir(parents=True)
    config = (REPOSITORY / "focus_on_depth" / "config.pbtxt").read_text()
    config = config.replace('backend: "openvino"', 'backend: "python"')
    config = config.replace('default_model_filename: "model.onnx"', "").replace(
        "max_batch_size: 8", "max_batch_size: 1"
    )
    (model / "config.pbtxt").write_text(re.sub(r"model_warmup \[.*?\n\]", "", config, flags=re.DOTALL))
    (model / "1" / "model.py").write_text(model_py)
    return directory


async def eventually(condition: Callable[[], bool], within_s: float) -> float:
    """Wait until `condition` holds; returns the seconds it took, fails after `within_s`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - start


def processes(session: int, name: str) -> list[int]:
    """Numbers of a session's processes whose command contains `name` in its first word."""
    found = []
    for pid in session_members(session):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if name in command:
            found.append(pid)
    return found


def shared_memory(session: int) -> set[Path]:
    """Every file of a running launch in `/dev/shm`, found by the region its models' processes were given."""
    for pid in processes(session, "python_backend_stub"):
        region = re.search(rb"depthlens-[0-9a-f]+_", Path(f"/proc/{pid}/cmdline").read_bytes())
        assert region
        return set(Path("/dev/shm").glob(f"{region[0].decode()}*"))
    return set()


def working_directories_without_a_launch() -> set[str]:
    """Names of the working directories whose launch has no lock any more."""
    names = {path.name for path in Path(tempfile.gettempdir()).glob("depthlens-????????")}
    return {name for name in names if not Path(f"/dev/shm/{name}_lock").exists()}
