"""The network in git: what its metadata says, and that near is near."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from service.contract import CANARY_SIZE, MODELS, NETWORK_SIZES
from training.config import load_config, parse_config
from training.version import LARGEST_BYTES, file_sha256

ROOT = Path(__file__).parents[2]
VERSION = ROOT / "model_repository" / "focus_on_depth" / "1"
SPEC = MODELS["focus_on_depth"]


@pytest.fixture(scope="module")
def metadata():
    return json.loads((VERSION / "metadata.json").read_text())


@pytest.fixture(scope="module")
def session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(VERSION / "model.onnx", options, providers=["CPUExecutionProvider"])


def run(session, image):
    return session.run([tensor.name for tensor in SPEC.outputs], {SPEC.inputs[0].name: image})


def corridor(height, width):
    """A tiled floor under a bright sky, in perspective, with a dark box standing in front on the left."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None] - width / 2
    horizon = height * 0.4
    below = np.maximum(rows - horizon, 0.5)
    tiles = ((np.floor(60 / below * 4) + np.floor(columns / below * 6)) % 2).astype(np.float32)
    floor = 90 + 70 * tiles
    image = np.where(rows > horizon, floor, 215 - rows / horizon * 30)
    image = np.repeat(image[..., None], 3, axis=2)
    image[int(height * 0.3) : int(height * 0.9), int(width * 0.12) : int(width * 0.35)] = (60, 40, 30)
    return image.astype(np.uint8)


def test_the_file_is_the_one_its_metadata_describes(metadata):
    assert file_sha256(VERSION / "model.onnx") == metadata["sha256"]
    assert (VERSION / "model.onnx").stat().st_size <= LARGEST_BYTES
    assert metadata["model"] == SPEC.name
    assert metadata["metrics"]["depth"]["all"]["delta1"] > 0.5
    assert metadata["parity"]["onnxruntime"]["depth_largest"] < 1e-3


def test_its_recipe_is_in_the_package(metadata):
    recipe = parse_config(metadata["config"], "metadata.json")
    assert recipe == load_config(ROOT / "training" / "configs" / "focus_on_depth_crisp.yaml")


def test_its_tensors_are_those_of_the_contract():
    graph = onnx.load(VERSION / "model.onnx").graph
    kinds = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}
    for found, wanted in ((graph.input, SPEC.inputs), (graph.output, SPEC.outputs)):
        assert [value.name for value in found] == [tensor.name for tensor in wanted]
        for value, tensor in zip(found, wanted, strict=True):
            assert kinds[value.type.tensor_type.elem_type] == tensor.dtype
            dims = value.type.tensor_type.shape.dim
            assert tuple(d.dim_value or -1 for d in dims) == (-1, *tensor.dims)


@pytest.mark.parametrize("size", [*NETWORK_SIZES, CANARY_SIZE], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_it_answers_at_every_served_size(session, size, batch):
    inverse_depth, person = run(session, np.stack([corridor(*size)] * batch))
    for result in (inverse_depth, person):
        assert result.shape == (batch, *size)
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        assert np.ptp(result, axis=0).max() < 1e-3
    assert inverse_depth.min() >= 0
    assert 0 <= person.min() <= person.max() <= 1


def test_near_is_larger(session):
    height, width = 288, 384
    inverse_depth = run(session, corridor(height, width)[None])[0][0]
    sky, front = inverse_depth[: height // 4].mean(), inverse_depth[-height // 8 :].mean()
    box = inverse_depth[int(height * 0.35) : int(height * 0.5), int(width * 0.16) : int(width * 0.3)].mean()
    beside = inverse_depth[int(height * 0.35) : int(height * 0.5), int(width * 0.7) : int(width * 0.84)].mean()
    assert front > 2 * sky
    assert box > beside


def test_nobody_in_an_empty_picture(session):
    assert (run(session, corridor(288, 384)[None])[1] > 0.5).mean() < 0.05


@pytest.mark.shared
def test_a_pedestrian_is_found_and_measured_rooms_have_the_right_polarity(session, shared):
    from training.data.truth import depth_truth, person_truth
    from training.evaluation import evaluate

    def predict(image):
        from service.imaging.geometry import Letterbox

        box = Letterbox.of(*image.shape[:2])
        return tuple(box.unfit(result[0]) for result in run(session, box.fit(image)[None]))

    depth = evaluate(predict, [s for s in depth_truth(shared / "data") if s.source in ("nyu", "planes")])
    assert depth["all"]["polarity"] > 0.5
    ccp = [s for s in person_truth(shared / "data") if s.source == "ccp"][:8]
    assert evaluate(predict, ccp)["ccp"]["iou"] > 0.75
