"""The stand-in OpenVINO backend without Triton: a fake of Triton's Python module around it."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from embedded_triton import expected_outputs, noise, write_tiny_network

from service.embedded.binary import BACKENDS_DIR

pytest.importorskip("openvino", reason="the extra `embedded` is not installed")


class FakeTensor:
    """Keeps the array it was made from; takes a DLPack capsule as Triton does."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def __dlpack__(self, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> "FakeTensor":
        assert "dltensor" in repr(capsule)
        return cls(name, _Capsule(capsule).array())


class _Capsule:
    """Lets NumPy read a bare capsule."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def array(self) -> np.ndarray:
        return np.from_dlpack(self)


class FakeError:
    CANCELLED, INTERNAL = "cancelled", "internal"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class FakeRequest:
    def __init__(self, image: np.ndarray, outputs: tuple[str, ...], cancelled: bool = False) -> None:
        self.image, self.outputs, self.cancelled = image, outputs, cancelled

    def is_cancelled(self) -> bool:
        return self.cancelled

    def requested_output_names(self) -> tuple[str, ...]:
        return self.outputs


def fake_pb_utils(log: list[str]) -> ModuleType:
    module = ModuleType("triton_python_backend_utils")
    module.Tensor = FakeTensor
    module.TritonError = FakeError
    module.TritonModelException = RuntimeError
    module.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(tensors=list(tensors), error=error)
    module.get_input_tensor_by_name = lambda request, name: FakeTensor(name, request.image)
    module.Logger = SimpleNamespace(log_info=log.append, log_error=log.append)
    return module


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> ModuleType:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils(log))
    spec = importlib.util.spec_from_file_location("openvino_backend", BACKENDS_DIR / "openvino" / "model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(backend: ModuleType, directory: Path, scale: float = 1.0, **changes: Any) -> Any:
    file = directory / "1" / "model.onnx"
    write_tiny_network(file, scale)
    os.utime(file, (1e9, 1e9))
    config = {
        "name": "tiny",
        "default_model_filename": "model.onnx",
        "input": [{"name": "image"}],
        "output": [{"name": "inverse_depth"}, {"name": "person"}],
        "parameters": {"INFERENCE_PRECISION_HINT": {"string_value": "f32"}},
    } | changes
    made = backend.TritonPythonModel()
    made.initialize({"model_config": json.dumps(config), "model_repository": str(directory), "model_version": "1"})
    return made


BOTH = ("inverse_depth", "person")


def test_a_batch_is_split_as_it_came(backend: ModuleType, tmp_path: Path) -> None:
    tiny = model(backend, tmp_path)
    batches = [np.stack([noise((32, 48), 10 * index + k) for k in range(index + 1)]) for index in range(3)]
    outputs = [BOTH, ("person",), BOTH]
    responses = tiny.execute([FakeRequest(*pair) for pair in zip(batches, outputs, strict=True)])
    for batch, names, response in zip(batches, outputs, responses, strict=True):
        assert response.error is None
        assert tuple(tensor.name for tensor in response.tensors) == names
        for tensor in response.tensors:
            expected = np.stack([expected_outputs(image)[tensor.name] for image in batch])
            np.testing.assert_allclose(tensor.array, expected, atol=1e-6, rtol=0)


def test_answers_survive_the_next_batch(backend: ModuleType, tmp_path: Path) -> None:
    tiny = model(backend, tmp_path)
    [first] = tiny.execute([FakeRequest(noise((32, 32), 1)[np.newaxis], BOTH)])
    kept = first.tensors[0].array.copy()
    tiny.execute([FakeRequest(noise((32, 32), 2)[np.newaxis], BOTH)])
    np.testing.assert_array_equal(first.tensors[0].array, kept)


def test_cancelled_requests_are_answered_but_not_computed(backend: ModuleType, tmp_path: Path) -> None:
    tiny = model(backend, tmp_path)
    image = noise((32, 32))[np.newaxis]
    responses = tiny.execute([FakeRequest(image, BOTH, cancelled=index != 1) for index in range(3)])
    assert [getattr(response.error, "code", None) for response in responses] == ["cancelled", None, "cancelled"]
    assert [response.error.code for response in tiny.execute([FakeRequest(image, BOTH, True)])] == ["cancelled"]


def test_a_failing_batch_answers_every_request_with_its_own_error(
    backend: ModuleType, tmp_path: Path, log: list[str]
) -> None:
    tiny = model(backend, tmp_path)
    requests = [FakeRequest(noise((32, width))[np.newaxis], BOTH) for width in (32, 64)]
    errors = [response.error for response in tiny.execute(requests)]
    assert [error.code for error in errors] == ["internal", "internal"]
    assert errors[0] is not errors[1]
    assert {error.message for error in errors} == {"inference failed"}
    assert "inference failed" in log[-1]


def test_an_output_the_network_lacks_is_told(backend: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has no output normals"):
        model(backend, tmp_path, output=[{"name": "normals"}])


@pytest.mark.parametrize(
    ("parameters", "capabilities", "expected"),
    [
        ({}, ["FP32", "BF16"], "bf16"),
        ({}, ["FP32"], "f32"),
        ({"HINT_BF16": "YES"}, ["FP32"], "bf16"),
        ({"HINT_BF16": "NO"}, ["BF16"], "f32"),
        ({"HINT_BF16": "YES", "INFERENCE_PRECISION_HINT": "f32"}, ["BF16"], "f32"),
    ],
)
def test_precision(backend: ModuleType, parameters: dict[str, str], capabilities: list[str], expected: str) -> None:
    properties = backend.compile_properties(parameters, capabilities, 4)
    assert properties["INFERENCE_PRECISION_HINT"] == expected


def test_threads_and_streams(backend: ModuleType) -> None:
    default = backend.compile_properties({}, [], 4)
    assert (default["NUM_STREAMS"], default["INFERENCE_NUM_THREADS"], default["ENABLE_CPU_PINNING"]) == ("1", 4, False)
    named = backend.compile_properties({"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "3"}, [], 4)
    assert (named["NUM_STREAMS"], named["INFERENCE_NUM_THREADS"]) == ("2", 3)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ({}, None),
    ],
)
def test_container_quota(backend: ModuleType, tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert backend.cgroup_quota(tmp_path) == cores
    assert 1 <= backend.available_cores(tmp_path)


def test_a_network_in_the_place_of_another_is_not_taken_for_it(
    backend: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same path, same size, same time, as a copy that keeps times or an image that levels them may have it."""
    monkeypatch.setenv(backend.CACHE_VARIABLE, str(tmp_path / "cache"))
    image = noise((32, 32))
    for scale in (1.0, 2.0, 1.0):
        tiny = model(backend, tmp_path / "repository", scale)
        [response] = tiny.execute([FakeRequest(image[np.newaxis], ("inverse_depth",))])
        expected = scale * expected_outputs(image)["inverse_depth"]
        np.testing.assert_allclose(response.tensors[0].array[0], expected, atol=1e-6, rtol=0)
