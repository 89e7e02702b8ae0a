import math
from pathlib import Path

import pytest
import torch
from torch import nn

import training
from training.errors import TrainingError
from training.models import MODELS, create_model
from training.models.focus_on_depth import Decoder, Normalise, Served
from training.models.mobilenet_v2 import MobileNetV2, load_imagenet
from training.trainer import losses


@pytest.fixture(params=sorted(MODELS))
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
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # at 64x64 from random weights a few channels behind ReLU6 may be silent, but no whole parameter
    assert without == []


def test_the_encoder_runs_once_for_both_heads(network):
    calls = []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
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
    network = create_model("focus_on_depth_tiny").train()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    values = []
    for _ in range(30):
        parts = losses(tiny, network, batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        values.append(parts["loss"].item())
    assert all(math.isfinite(value) for value in values)
    assert values[-1] < 0.5 * values[0]


def test_imagenet_weights_of_another_digest_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"other")
    with pytest.raises(TrainingError, match=r"SHA-256 is .*pins 1234"):
        load_imagenet(MobileNetV2(), path, "1234")
    with pytest.raises(TrainingError, match="not found"):
        load_imagenet(MobileNetV2(), tmp_path / "none", "1234")


@pytest.mark.shared
def test_imagenet_weights_recognise_a_photo(shared):
    """The encoder, with the file's own last layers, names the class of most photos: padding and keys are right."""
    import cv2
    import safetensors.torch

    from training.config import load_config
    from training.data.sample import read_rgb

    recipe = load_config(Path(training.__file__).parent / "configs" / "first_network.yaml")
    path = shared / "weights" / recipe.encoder_weights
    encoder = MobileNetV2().eval()
    load_imagenet(encoder, path, recipe.encoder_sha256)
    stored = safetensors.torch.load_file(path)
    photos = [
        photo
        for photo in sorted((shared / "data" / "photos" / "imagenet").glob("*.jpg"))
        if photo.stem.split("_", 1)[1] in {"goldfish", "zebra", "banana", "bookcase", "cowboy_boot", "forklift"}
    ]
    batch = torch.stack([torch.from_numpy(cv2.resize(read_rgb(photo), (224, 224))) for photo in photos])
    with torch.no_grad():
        features = encoder(Normalise((127.5,) * 3, (127.5,) * 3)(batch))[-1]
        features = nn.functional.relu6(
            nn.functional.conv2d(features, stored["features.18.0.weight"], stored["features.18.1.bias"])
        )
        logits = nn.functional.linear(features.mean((2, 3)), stored["classifier.1.weight"], stored["classifier.1.bias"])
    # confidence: noise through wrong keys or padding stays flat over 1000 classes
    assert len(photos) >= 3
    assert (logits.softmax(1).max(1).values > 0.3).float().mean() >= 0.5
    assert len(set(logits.argmax(1).tolist())) == len(photos)
