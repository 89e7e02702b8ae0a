import math

import pytest
import torch

from training.errors import TrainingError
from training.models import MODELS, create_model
from training.models.focus_on_depth import Decoder, Normalise, Served
from training.models.mobilenet_v2 import MobileNetV2
from training.tasks import make_task

LARGE = ("focus_on_depth_vit_base", "focus_on_depth_vit_base_add", "focus_on_depth_vit_base_ignore")
LARGE += ("focus_on_depth_vit_large",)  # built without memory in test_focus_on_depth_vit.py


@pytest.fixture(params=sorted(name for name in MODELS if name.startswith("focus_on_depth") and name not in LARGE))
def network(request):
    torch.manual_seed(0)
    return create_model(request.param)


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 32)])
def test_results_have_the_size_of_the_photo_and_the_range_of_the_contract(network, size):
    with torch.no_grad():
        inverse_depth, person = Served(network).eval()(pictures(2, *size))
    for result in (inverse_depth, person):
        assert result.shape == (2, *size)
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()
    assert inverse_depth.min() >= 0
    assert person.min() >= 0
    assert person.max() <= 1


def test_every_parameter_gets_a_gradient(network):
    inverse_depth, person = network.train()(pictures(2, 64, 64))
    (inverse_depth.square().mean() + person.square().mean()).backward()
    learning = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    without = [name for name, p in learning if p.grad is None or not p.grad.abs().sum() > 0]
    # at 64x64 from random weights a few channels behind ReLU6 may be silent, but no whole parameter
    assert without == []


def test_the_encoder_runs_once_for_both_heads(network):
    calls = []
    first = next(part for part in network.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: calls.append(1))
    network(pictures(1, 64, 64))
    assert len(calls) == 1


def test_normalisation_is_inside_and_leaves_the_state_dict_alone(network):
    assert not [key for key in network.state_dict() if key.startswith("normalise")]
    found = Normalise((127.5,) * 3, (127.5,) * 3)(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8))
    assert found.shape == (1, 3, 1, 1)
    assert found.flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_encoder_features_by_scale():
    features = MobileNetV2()(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 64 // scale, 96 // scale)
        for channels, scale in zip(MobileNetV2.channels, (2, 4, 8, 16, 32), strict=True)
    ]


def test_stride_two_pads_right_and_below_only():
    encoder = MobileNetV2()
    stem = encoder.features[0]
    torch.nn.init.ones_(stem.conv.weight)
    result = stem(torch.ones(1, 3, 4, 4) / 9)
    # 3 channels * 9 taps / 9 inside; the last row and column see zeros, the first do not
    assert result[0, 0].flatten().tolist() == pytest.approx([3, 2, 2, 4 / 3])


def test_decoder_refuses_unequal_lists():
    with pytest.raises(ValueError, match="5 encoder features, 2 decoder widths"):
        Decoder(MobileNetV2.channels, (8, 8))


def test_unknown_model_names_the_known_ones():
    with pytest.raises(TrainingError, match="focus_on_depth_small"):
        create_model("resnet")


def test_overfits_two_pictures(tiny, bank):
    from training.data.bank import Batch
    from training.data.transforms import warp, whole_map

    samples = [scenes[0] for scenes in bank.train["rooms"].values()][:2]
    batch = Batch.of([warp(s, whole_map((96, 128), (64, 64)), (64, 64)) for s in samples])
    torch.manual_seed(0)
    network, task = create_model("focus_on_depth_tiny").train(), make_task(tiny)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    values = []
    for _ in range(30):
        parts = task.losses(network, batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        values.append(parts["loss"].item())
    assert all(math.isfinite(value) for value in values)
    assert values[-1] < 0.5 * values[0]
