import hashlib

import pytest
import torch
from torch import nn

from training.errors import TrainingError
from training.models.encoder_weights import load_encoder
from training.models.ghostnet import GhostNetEncoder


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


def norms(encoder):
    return [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]


def test_taps_lie_after_the_last_block_of_each_scale():
    encoder = GhostNetEncoder().eval()
    assert encoder.channels == (16, 24, 40, 112, 960)
    # timm's own taps would leave 948,388 of these: no block at 1/16 beyond the second, no 960 channels
    assert sum(p.numel() for p in encoder.parameters()) == 2_671_428
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 64 // scale, 96 // scale)
        for channels, scale in zip((16, 24, 40, 112, 960), (2, 4, 8, 16, 32), strict=True)
    ]


def test_a_frozen_norm_stays_as_it_is_and_the_rest_learns():
    torch.manual_seed(0)
    encoder = GhostNetEncoder("ghostnet_050")
    encoder.freeze_norm()
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    learning = [p for p in encoder.parameters() if p.requires_grad]
    sum(f.square().mean() for f in encoder(torch.randn(2, 3, 64, 64))).backward()
    torch.optim.SGD(learning, 0.1).step()
    after = encoder.state_dict()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    of_norms = {
        f"{name}.{key}"
        for name, m in encoder.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for key in m.state_dict()
    }
    assert of_norms <= frozen
    assert "body.conv_stem.weight" not in frozen
    assert not any(norm.training for norm in norms(encoder))


def test_a_norm_that_is_not_frozen_follows_the_data():
    encoder = GhostNetEncoder("ghostnet_050").train()
    encoder(torch.randn(2, 3, 64, 64))
    assert all(norm.training and norm.num_batches_tracked == 1 for norm in norms(encoder))


def test_weights_for_rgb_fit_a_stem_for_six_channels_and_give_the_same_for_a_photo_twice():
    torch.manual_seed(0)
    three, six = GhostNetEncoder("ghostnet_050").eval(), GhostNetEncoder("ghostnet_050", inputs=6).eval()
    assert {k: v.shape for k, v in six.wanted_state().items()} == {
        k: v.shape for k, v in three.body.state_dict().items()
    }
    six.adopt(three.body.state_dict())
    photo = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, wanted in zip(six(torch.cat((photo, photo), 1)), three(photo), strict=True):
            torch.testing.assert_close(found, wanted)


def test_published_weights_are_taken_by_timms_keys_and_digest(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    whole = timm.create_model("ghostnet_050").state_dict()
    path = tmp_path / "ghost.safetensors"
    save_file(whole, path)
    encoder = GhostNetEncoder("ghostnet_050")
    load_encoder(encoder, path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert all(torch.equal(value, whole[name]) for name, value in encoder.body.state_dict().items())
    with pytest.raises(TrainingError, match="the recipe pins 0000"):
        load_encoder(encoder, path, "0" * 64)


def test_the_keys_are_those_of_timm():
    import timm

    whole = timm.create_model("ghostnet_100").state_dict()
    wanted = GhostNetEncoder().wanted_state()
    assert all(whole[name].shape == value.shape for name, value in wanted.items())
    assert {name.split(".")[0] for name in set(whole) - set(wanted)} == {"conv_head", "classifier"}


@pytest.mark.parametrize("size", [(64, 80), (33, 64)])
def test_other_sizes_are_refused(size):
    with pytest.raises(TrainingError, match=f"{size[0]}x{size[1]}: both must be multiples of 32"):
        GhostNetEncoder("ghostnet_050")(torch.zeros(1, 3, *size))
