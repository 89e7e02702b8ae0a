"""Stand-in for Triton's compiled OpenVINO backend, where only Triton's core and its Python backend are installed.

Triton's python-based-backend feature runs this file for every model with `backend: "openvino"`. It takes any batch up
to `max_batch_size` and any shape, where the compiled backend wants full batches. It reads the parameters of the
official backend (github.com/triton-inference-server/openvino_backend, README) that make sense on CPU and chooses the
rest from the cores and the instructions it finds. Tensors come and go through DLPack: the Python backend of Triton
2.51 is built against NumPy 1 and hands NumPy 2 corrupted arrays.
"""

import ctypes
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

CACHE_VARIABLE = "DEPTHLENS_OPENVINO_CACHE"
"""Folder of the compiled-model cache; empty or unset: no cache."""


_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may really use: the scheduler's mask, cut by a container's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup_quota(cgroup)
    return max(1, min(cores, math.floor(quota))) if quota else cores


def cgroup_quota(root: Path) -> float | None:
    """CPU quota in cores from cgroup v2, then v1, as mounted at `root`; None when there is no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (root / "cpu/cpu.cfs_quota_us").read_text()
        period = (root / "cpu/cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError):
        return None


def compile_properties(parameters: dict[str, str], capabilities: list[str], cores: int) -> dict[str, Any]:
    """OpenVINO properties from a model's parameters.

    Args:
        parameters: of `config.pbtxt`: `NUM_STREAMS`, `INFERENCE_NUM_THREADS`, `PERFORMANCE_HINT`, `HINT_BF16` as in
            the official backend, and `INFERENCE_PRECISION_HINT` (`f32`, `bf16`), which wins over `HINT_BF16`.
        capabilities: of the CPU, as OpenVINO names them (`BF16`, ...).
        cores: how many the process may use.

    Returns:
        One stream over all cores unless told otherwise: batching is Triton's, and this gives the best latency. No
        pinning: pinned instances of several processes bind to the same core. bf16 where the CPU has it: several
        times faster than f32 on networks that are dense enough, with errors below one percent of the range.
    """
    precision = "bf16" if "BF16" in capabilities else "f32"
    if "HINT_BF16" in parameters:
        precision = "bf16" if parameters["HINT_BF16"].upper() == "YES" else "f32"
    properties: dict[str, Any] = {
        "NUM_STREAMS": parameters.get("NUM_STREAMS", "1"),
        "INFERENCE_NUM_THREADS": int(parameters.get("INFERENCE_NUM_THREADS", cores)),
        "INFERENCE_PRECISION_HINT": parameters.get("INFERENCE_PRECISION_HINT", precision),
        "PERFORMANCE_HINT": parameters.get("PERFORMANCE_HINT", "LATENCY"),
        "ENABLE_CPU_PINNING": False,
    }
    if cache := os.environ.get(CACHE_VARIABLE):
        properties["CACHE_DIR"] = cache
    return properties


def cache_folder(cache: str, file: Path) -> str:
    """A folder of the cache for what the file holds.

    OpenVINO knows a file again by path, size and time, in which one network can be like another whose weights are in
    its place now: then the old one would answer.
    """
    with file.open("rb") as opened:
        return f"{cache}/{hashlib.file_digest(opened, 'sha256').hexdigest()[:16]}"


_set_capsule_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_capsule_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]


def to_tensor(name: str, array: NDArray[np.float32]) -> Any:
    """A Triton tensor that shares the memory of `array` (C order) and keeps it alive.

    Triton renames the capsule it takes to `used_dlpack`, where the standard says `used_dltensor`; NumPy's destructor
    of the capsule does not know that name and complains without end. Triton frees the array itself, so the
    capsule needs no destructor.
    """
    capsule = array.__dlpack__()
    _set_capsule_destructor(capsule, None)
    return pb_utils.Tensor.from_dlpack(name, capsule)


def _failed(code: Any) -> Any:
    """An error response. Each needs its own error object: a shared one ends tritonserver by a segmentation fault."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError("inference failed", code))


class TritonPythonModel:
    """One instance of one network; Triton makes it and calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read and compile `<repository>/<version>/<default_model_filename>`."""
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.xml"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        parameters = {key: entry["string_value"] for key, entry in config.get("parameters", {}).items()}
        core = openvino.Core()
        properties = compile_properties(
            parameters, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), available_cores()
        )
        if "CACHE_DIR" in properties:
            properties["CACHE_DIR"] = cache_folder(properties["CACHE_DIR"], path)
        network = core.compile_model(path, "CPU", properties)  # by its path: with a cache, the file is not parsed
        self._input_names = [entry["name"] for entry in config["input"]]
        self._outputs = {output.get_any_name(): output for output in network.outputs}
        missing = {entry["name"] for entry in config["output"]} - self._outputs.keys()
        if missing:
            raise pb_utils.TritonModelException(f"{filename} has no output {', '.join(sorted(missing))}")
        self._request = network.create_infer_request()
        pb_utils.Logger.log_info(f"{config['name']}: {filename} compiled with {properties}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One inference over the requests of a batch, which Triton has already made equal in shape.

        Requests whose callers left or whose deadline passed are not computed: Triton joins what waits into the next
        batch at once, and does not look at it again.
        """
        responses = [_failed(pb_utils.TritonError.CANCELLED) if r.is_cancelled() else None for r in requests]
        waiting = [request for request, response in zip(requests, responses, strict=True) if response is None]
        computed = iter(self._compute(waiting))
        return [next(computed) if response is None else response for response in responses]

    def _compute(self, requests: list[Any]) -> list[Any]:
        if not requests:
            return []
        try:
            inputs = [self._read(request) for request in requests]
            batch = {name: np.concatenate([tensors[name] for tensors in inputs]) for name in self._input_names}
            results = self._request.infer(batch, share_inputs=True, share_outputs=True)
            sizes = [len(tensors[self._input_names[0]]) for tensors in inputs]
            return [
                self._respond(request, results, stop - size, stop)
                for request, size, stop in zip(requests, sizes, np.cumsum(sizes), strict=True)
            ]
        except Exception as error:
            pb_utils.Logger.log_error(f"inference failed: {error}")  # the answer itself tells no paths or shapes
            return [_failed(pb_utils.TritonError.INTERNAL) for _ in requests]

    def _read(self, request: Any) -> dict[str, NDArray[Any]]:
        return {name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self._input_names}

    def _respond(self, request: Any, results: Any, start: int, stop: int) -> Any:
        # A copy per request: the arrays live in the infer request's memory, which the next batch overwrites.
        tensors = [
            to_tensor(name, np.array(results[self._outputs[name]][start:stop]))
            for name in request.requested_output_names()
        ]
        return pb_utils.InferenceResponse(tensors)

    def finalize(self) -> None:
        """Let go of the compiled network."""
        del self._request
