import dataclasses

import pytest
import safetensors.torch
import torch

from training.__main__ import main
from training.checkpoint import load_weights, save_weights
from training.errors import TrainingError
from training.export import file_sha256
from training.models import create_model
from training.trainer import LAST, Run, train


@pytest.fixture
def weights(tiny, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
    return path


def test_a_run_starts_from_the_averaged_weights_of_another(tiny, bank, tmp_path, capsys):
    run = train(tiny, bank, None, tmp_path / "first", resume=False)
    path = tmp_path / "weights" / "tiny.safetensors"
    assert main(["weights", "--checkpoint", str(tmp_path / "first" / LAST), "--out", str(path)]) == 0
    digest = file_sha256(path)
    assert digest in capsys.readouterr().out
    again = dataclasses.replace(tiny, network_weights=path.name, network_sha256=digest)
    started = Run.start(again, path.parent).network.state_dict()
    for name, value in run.average.state_dict().items():
        assert torch.allclose(started[name].float(), value.float(), rtol=1e-3, atol=1e-4), name


def test_other_files_are_refused_with_what_differs(weights):
    with pytest.raises(TrainingError, match=r"SHA-256 is [0-9a-f]{64}, the recipe pins abc"):
        load_weights(create_model("focus_on_depth_tiny"), weights, "abc")
    with pytest.raises(TrainingError, match=r"decoder\.\S+ has shape \(.*\) there, \(.*\) here"):
        load_weights(create_model("focus_on_depth_small"), weights, file_sha256(weights))
    with pytest.raises(TrainingError, match="No such file"):
        load_weights(create_model("focus_on_depth_tiny"), weights.with_name("none"), "abc")
    weights.write_bytes(b"broken")
    with pytest.raises(TrainingError, match="not readable"):
        load_weights(create_model("focus_on_depth_tiny"), weights, file_sha256(weights))


def test_a_network_may_grow_transformer_blocks_over_the_weights_of_another(tmp_path):
    torch.manual_seed(0)
    plain, path = create_model("focus_on_depth_sharp").eval(), tmp_path / "plain.safetensors"
    safetensors.torch.save_file(plain.state_dict(), path)
    grown = create_model("focus_on_depth_context").eval()
    load_weights(grown, path, file_sha256(path))
    image = torch.randint(0, 256, (1, 96, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = plain(image)[0], grown(image)[0]
    assert not torch.equal(before, after)
    assert (before - after).std() < 0.05 * before.std()
    # but nothing else may be missing
    stored = {name: value for name, value in plain.state_dict().items() if not name.startswith("depth_head.four")}
    safetensors.torch.save_file(stored, path)
    with pytest.raises(TrainingError, match=r"depth_head\.four\.weight has shape None there"):
        load_weights(grown, path, file_sha256(path))
