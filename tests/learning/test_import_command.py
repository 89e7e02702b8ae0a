"""`python -m training import`, from a file in the authors' layout to a checkpoint, and on to an exported model."""

import json

import pytest
import torch

from service.weights import CATALOGUE
from training.__main__ import main
from training.checkpoint import load_checkpoint
from training.errors import TrainingError
from training.export import file_sha256
from training.importers.networks import IMPORTERS
from training.models import MODELS, create_model
from training.tasks import make_task


@pytest.fixture
def published(tmp_path):
    """Random weights in the layout of Depth Anything's own files."""
    torch.manual_seed(0)
    state = create_model("depth_anything_v2_tiny").state_dict()
    layout = IMPORTERS["depth_anything_v2_tiny"][0]
    path = tmp_path / "depth_anything_v2_vits.pth"
    torch.save({layout.there(name)[0]: value for name, value in state.items()}, path)
    return path


def imported(published, tmp_path, name="depth_anything_v2_tiny"):
    out = tmp_path / "runs" / "imported.pt"
    return main(["import", "--weights", str(published), "--as", name, "--out", str(out)]), out


def test_every_importer_has_a_network():
    assert set(IMPORTERS) <= set(MODELS)


def test_what_can_be_pulled_can_be_imported():
    assert {entry.network for entry in CATALOGUE.values()} <= set(IMPORTERS)


def test_a_published_file_becomes_a_checkpoint_that_says_where_it_is_from(published, tmp_path, capsys):
    status, out = imported(published, tmp_path)
    assert status == 0
    assert "all of them found" in capsys.readouterr().out
    checkpoint = load_checkpoint(out)
    assert checkpoint.step == 0
    assert checkpoint.config.flat() == {
        "task": "imported",
        "model": "depth_anything_v2_tiny",
        "imported_file": "depth_anything_v2_vits.pth",
        "imported_sha256": file_sha256(published),
        "sources": {},
    }
    stored = torch.load(published, weights_only=True)
    assert torch.equal(checkpoint.ema["head.before.bias"], stored["depth_head.scratch.output_conv1.bias"])
    with pytest.raises(TrainingError, match="task imported cannot be trained"):
        make_task(checkpoint.config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "error: no weights can be imported as 'resnet'; known: depth_anything_v2_small, "),
        ("dpt_tiny", "of another network: no tensor pretrained.model.cls_token or dpt.embeddings.cls_token"),
    ],
)
def test_mistakes_are_one_line(published, tmp_path, capsys, name, message):
    status, out = imported(published, tmp_path, name)
    error = capsys.readouterr().err
    assert status == 1
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_it_is_exported_and_agrees_with_torch_at_every_size(published, tmp_path, capsys):
    assert imported(published, tmp_path)[0] == 0
    options = ["--model", "depth_anything", "--size", "70x70", "--size", "56x70", "--license", "Apache-2.0"]
    options += ["--repository", str(tmp_path / "repository"), "--threads", "1"]
    assert main(["export", "--checkpoint", str(tmp_path / "runs" / "imported.pt"), *options]) == 0
    folder = tmp_path / "repository" / "depth_anything"
    said = json.loads((folder / "1" / "metadata.json").read_text())
    assert said["outputs"] == ["inverse_depth"]
    assert said["config"]["imported_sha256"] == file_sha256(published)
    for runtime in ("onnxruntime", "openvino_f32", "torchscript"):
        assert said["parity"][runtime]["depth_largest"] < 1e-4  # of the largest inverse depth
    assert "Apache-2.0" in (folder / "config.pbtxt").read_text()
