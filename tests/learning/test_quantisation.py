import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from service.contract import CANARY_SIZE, MODELS
from training.errors import TrainingError
from training.export import served_network
from training.parity import difference, eager, onnx_runtime
from training.quantisation import write_int8
from training.trainer import Run
from training.version import write_onnx

BOTH = ["inverse_depth", "person"]


@pytest.fixture
def network(tiny):
    return served_network(Run.start(tiny, None).checkpoint(tiny, "abc"))


@pytest.fixture
def repository(tmp_path):
    """A repository with a version whose network is still to be written."""
    folder = tmp_path / "focus_on_depth" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    about = {"parameters": 1, "gflop": {"size": [64, 96], "value": 0.1}, "outputs": BOTH}
    sizes = {"sizes": [[64, 96], [96, 64]], "canary_size": list(CANARY_SIZE)}
    (folder / "metadata.json").write_text(json.dumps(about | sizes))
    return tmp_path


@pytest.fixture
def photos(sample_of):
    return [sample_of(seed).image for seed in range(3)]


def test_int8_is_a_model_of_its_own_that_says_how_far_it_is_off(repository, network, photos):
    spec = replace(MODELS["focus_on_depth"], sizes=((64, 96), (96, 64)))
    write_onnx(network, spec, 32, repository / "focus_on_depth" / "1" / "model.onnx")
    found = write_int8("focus_on_depth", "focus_on_depth_int8", photos, repository)
    folder = repository / "focus_on_depth_int8"
    assert json.loads((folder / "1" / "metadata.json").read_text()) == found
    small, whole = ((each / "1" / "model.onnx").stat().st_size for each in (folder, repository / "focus_on_depth"))
    assert small < 0.5 * whole, "weights of a byte instead of four"
    config = (folder / "config.pbtxt").read_text()
    assert 'key: "HINT_BF16" value { string_value: "NO" }' in config
    assert "int8" in config

    picture = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    off = difference(onnx_runtime(folder / "1" / "model.onnx", BOTH)(picture), eager(network)(picture))
    assert 1e-5 < off.depth_mean < 0.1, "another network, but hardly"
    assert 0 < found["off_by"]["depth_mean"] < 0.1
    assert found["off_by"]["depth_mean"] <= found["off_by"]["depth_largest"]


def test_what_cannot_be_quantised_is_refused_and_leaves_nothing(repository, photos):
    with pytest.raises(TrainingError, match="model depth_bts is not an exported network"):
        write_int8("depth_bts", "depth_bts_int8", photos, repository)
    with pytest.raises(TrainingError, match="there is a model focus_on_depth"):
        write_int8("focus_on_depth", "focus_on_depth", photos, repository)
    with pytest.raises(TrainingError, match="give --photos"):
        write_int8("focus_on_depth", "focus_on_depth_int8", [], repository)
    shutil.copytree(repository / "focus_on_depth", repository / "focus")
    (repository / "focus" / "1" / "model.onnx").unlink()
    with pytest.raises(TrainingError, match="quantise its steps"):
        write_int8("focus", "focus_int8", photos, repository)
    assert sorted(path.name for path in repository.iterdir()) == ["focus", "focus_on_depth"]
