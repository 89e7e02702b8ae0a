import dataclasses
import json

import numpy as np
import onnx
import pytest

import training.export as export_module
import training.version as version_module
from service.contract import CANARY_SIZE, NETWORK_SIZES
from training.errors import TrainingError
from training.export import Provenance, Request, export, file_sha256, served_network
from training.parity import Errors, Tolerance, compare, difference, eager, onnx_runtime
from training.trainer import Run
from training.version import comparison_batches

PROVENANCE = Provenance("runs/tiny/last.pt", "0" * 64, {"depth": {"all": {"delta1": 0.5}}})


@pytest.fixture
def checkpoint(tiny):
    return Run.start(tiny, None).checkpoint(tiny, "abc")


@pytest.fixture
def photos(sample_of):
    return [sample_of(seed).image for seed in range(2)]


def test_export_writes_a_whole_version(checkpoint, photos, tmp_path, monkeypatch):
    asked = []

    def some_batches(photos, sizes, count):
        asked.append((len(photos), sizes, count))
        return comparison_batches(photos, sizes[-2:], count=count)

    monkeypatch.setattr(export_module, "comparison_batches", some_batches)
    metadata = export(checkpoint, PROVENANCE, photos, tmp_path)
    assert asked == [(2, (*NETWORK_SIZES, CANARY_SIZE), 3)], "compared at every served size"
    folder = tmp_path / "focus_on_depth" / "1"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["1", "config.pbtxt", "configs"]
    assert sorted(p.name for p in folder.iterdir()) == ["metadata.json", "model.onnx"]
    assert json.loads((folder / "metadata.json").read_text()) == metadata
    assert metadata["sha256"] == file_sha256(folder / "model.onnx")
    assert metadata["config"]["model"] == "focus_on_depth_tiny"
    assert metadata["checkpoint"] == {"file": "runs/tiny/last.pt", "sha256": "0" * 64, "step": 0, "commit": "abc"}
    assert set(metadata["parity"]) == {"torchscript", "onnxruntime", "openvino_f32", "openvino_bf16"}
    assert metadata["gflop"]["value"] > 0.1

    assert b".py" not in (folder / "model.onnx").read_bytes()

    graph = onnx.load(folder / "model.onnx").graph
    dims = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert all(isinstance(d, str) for d in dims[:3])
    assert dims[3] == 3
    assert [o.name for o in graph.output] == ["inverse_depth", "person"]

    # the same file answers at a size and batch that export never saw
    image = np.full((4, 32, 160, 3), 90, np.uint8)
    found = onnx_runtime(folder / "model.onnx", ["inverse_depth", "person"])(image)
    assert difference(found, eager(served_network(checkpoint))(image)).within(Tolerance(1e-3, 1e-4))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("depth/../x"), "a name has lower-case letters"),
        (Request("focus_on_depth", sizes=((64, 64),)), "leave --size and --side away"),
        (Request("depth_tiny", sizes=((64, 70),)), "64x70: sides must be multiples of 32"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(checkpoint, tmp_path, request_, message):
    with pytest.raises(TrainingError, match=message):
        export(checkpoint, PROVENANCE, [], tmp_path, request_)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_parity_leaves_nothing_new_and_nothing_broken(checkpoint, photos, tmp_path, monkeypatch):
    old = tmp_path / "focus_on_depth" / "1"
    old.mkdir(parents=True)
    (old / "model.onnx").write_bytes(b"the version before")

    real = version_module.onnx_runtime

    def shifted(path, outputs):
        run = real(path, outputs)
        return lambda image: (run(image)[0] * np.float32(1.5), run(image)[1])

    monkeypatch.setattr(version_module, "onnx_runtime", shifted)
    monkeypatch.setattr(export_module, "comparison_batches", lambda *_, **__: [np.zeros((1, 64, 96, 3), np.uint8)])
    with pytest.raises(TrainingError, match=r"onnxruntime differs from eager: .*nothing written"):
        export(checkpoint, PROVENANCE, photos, tmp_path)
    assert [p.name for p in old.parent.iterdir()] == ["1"]
    assert [p.name for p in old.iterdir()] == ["model.onnx"]
    assert (old / "model.onnx").read_bytes() == b"the version before"


def test_the_comparison_covers_every_served_size_and_batches_of_one_and_three(photos):
    shapes = {batch.shape[:3] for batch in comparison_batches(photos)}
    for size in (*NETWORK_SIZES, CANARY_SIZE):
        assert {(1, *size), (3, *size)} <= shapes
    assert all(batch.dtype == np.uint8 for batch in comparison_batches([]))


def test_difference_by_hand():
    wanted = (np.array([[[0.0, 4.0]]], np.float32), np.array([[[0.5, 0.5]]], np.float32))
    found = (np.array([[[1.0, 4.0]]], np.float32), np.array([[[0.5, 0.7]]], np.float32))
    errors = difference(found, wanted)
    assert dataclasses.astuple(errors) == pytest.approx((0.25, 0.125, 0.2, 0.1), abs=1e-6)
    assert errors.within(Tolerance(0.25, 0.2))
    assert not errors.within(Tolerance(0.2, 0.2))


@pytest.mark.parametrize(
    "bad",
    [
        np.array([[[np.nan, 4.0]]], np.float32),
        np.array([[[1.0]]], np.float32),
        np.array([[[1.0, 4.0]]], np.float64),
    ],
)
def test_a_result_of_another_kind_never_passes(bad):
    wanted = (np.array([[[0.0, 4.0]]], np.float32), np.array([[[0.5, 0.5]]], np.float32))
    assert not difference((bad, wanted[1]), wanted).within(Tolerance(1e9, 1e9))


def test_nan_errors_are_not_within():
    assert not Errors(float("nan"), 0, 0, 0).within(Tolerance(1, 1))


def test_negative_depth_is_refused():
    def good(image):
        return np.ones(image.shape[:3], np.float32), np.full(image.shape[:3], 0.5, np.float32)

    def bad(image):
        return -good(image)[0], good(image)[1]

    with pytest.raises(TrainingError, match="outside its range"):
        compare(good, {"onnxruntime": bad}, [np.zeros((1, 4, 4, 3), np.uint8)])
