import copy
import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

import training
from training.config import load_config
from training.errors import TrainingError
from training.models import create_model
from training.models.encoder_weights import lite_keys, load_encoder
from training.models.focus_on_depth import Normalise
from training.models.mobilenet_v2 import MobileNetV2
from training.models.timm_encoder import SamePadded, TimmEncoder
from training.models.vit import VitEncoder

CONFIGS = Path(training.__file__).parent / "configs"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained(name, **arguments):
    """A network of timm whose batch norm is no identity."""
    generator = torch.Generator().manual_seed(0)
    network = timm.create_model(name, **arguments).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                values.data.uniform_(low, high, generator=generator)
    return network


@pytest.fixture(scope="module")
def lite0():
    return trained("tf_efficientnet_lite0")


def native(state, folder):
    path = folder / "native.safetensors"
    safetensors.torch.save_file(state, path)
    return path


def lukemelas(state, folder):
    path = folder / "lukemelas.pth"
    names = lite_keys([key for key in state if not key.startswith("classifier")])
    torch.save({names[key]: state[key] for key in names}, path)
    return path


@pytest.mark.parametrize("write", [native, lukemelas])
def test_an_encoder_with_loaded_weights_is_the_network_they_come_from(write, lite0, tmp_path):
    path = write(lite0.state_dict(), tmp_path)
    encoder = TimmEncoder("tf_efficientnet_lite0").eval()
    load_encoder(encoder, path, digest(path))
    picture = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        found, wanted = encoder(picture), lite0.forward_intermediates(picture, intermediates_only=True)
    assert len(found) == 5
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-3, atol=1e-4)


def test_a_settled_encoder_has_no_batch_norm_and_keeps_its_keys_when_weights_arrive(lite0, tmp_path):
    encoder = TimmEncoder("tf_efficientnet_lite0")
    keys = list(encoder.state_dict())
    path = native(lite0.state_dict(), tmp_path)
    load_encoder(encoder, path, digest(path))
    assert list(encoder.state_dict()) == keys
    assert not [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [module for module in encoder.modules() if isinstance(module, SamePadded)]


def test_an_encoder_that_flattens_its_stages_loads_too(tmp_path):
    network = trained("resnet18", num_classes=0)
    path = native(network.state_dict(), tmp_path)
    encoder = TimmEncoder("resnet18").eval()
    load_encoder(encoder, path, digest(path))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(encoder(picture)[-1], network.forward_features(picture), rtol=1e-3, atol=1e-4)


def test_a_transformer_loads(tmp_path):
    network = timm.create_model("vit_tiny_patch16_384")
    path = native(network.state_dict(), tmp_path)
    encoder = VitEncoder("vit_tiny_patch16_384", (2, 5, 8, 11), (8, 8, 8, 8))
    load_encoder(encoder, path, digest(path))
    assert torch.equal(encoder.body.blocks[7].attn.qkv.weight, network.blocks[7].attn.qkv.weight)


@pytest.mark.parametrize("write", [native, lukemelas])
def test_a_mismatch_names_file_and_tensor(write, lite0, tmp_path):
    state = copy.copy(lite0.state_dict())
    state["blocks.2.1.conv_dw.weight"] = torch.zeros(1, 2, 3)
    path = write(state, tmp_path)
    name = {"native": "blocks.2.1.conv_dw.weight", "lukemelas": "_blocks.4._depthwise_conv.weight"}[path.stem]
    said = rf"{path.name}: {name} is \(1, 2, 3\), the network has \(240, 1, 5, 5\)$"
    with pytest.raises(TrainingError, match=said):
        load_encoder(TimmEncoder("tf_efficientnet_lite0"), path, digest(path))


def test_weights_of_another_network_are_refused(lite0, tmp_path):
    path = native(lite0.state_dict(), tmp_path)
    with pytest.raises(TrainingError, match=r"native\.safetensors: no tensor features\.0\.0\.weight$"):
        load_encoder(MobileNetV2(), path, digest(path))
    with pytest.raises(TrainingError, match="none are known for Identity"):
        load_encoder(nn.Identity(), path, digest(path))


def test_files_of_another_digest_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"other")
    with pytest.raises(TrainingError, match=r"SHA-256 is .*pins 1234"):
        load_encoder(MobileNetV2(), path, "1234")
    with pytest.raises(TrainingError, match="not found"):
        load_encoder(MobileNetV2(), tmp_path / "none", "1234")


@pytest.mark.parametrize("name", ["damaged.safetensors", "damaged.pth"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not weights")
    with pytest.raises(TrainingError, match=rf"{name}: not readable"):
        load_encoder(MobileNetV2(), path, digest(path))


def test_a_file_with_more_than_tensors_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(TrainingError, match=r"list\.pth: not a state dict"):
        load_encoder(MobileNetV2(), path, digest(path))


def test_lite_networks_see_what_their_weights_were_trained_with():
    normalise = create_model("focus_on_depth_lite0").normalise
    found = normalise(torch.tensor([[[[0, 127, 255]]]], dtype=torch.uint8))
    assert found.flatten().tolist() == [-127 / 128, 0, 1]


def imagenet_photos(shared):
    """Photos of things whose name is a class, one each, as (B, 224, 224, 3) uint8."""
    import cv2

    from training.data.sample import read_rgb

    named = {"goldfish", "zebra", "banana", "bookcase", "cowboy_boot", "forklift"}
    paths = sorted((shared / "data" / "photos" / "imagenet").glob("*.jpg"))
    photos = [read_rgb(path) for path in paths if path.stem.split("_", 1)[1] in named]
    assert len(photos) >= 3
    return torch.stack([torch.from_numpy(cv2.resize(photo, (224, 224))) for photo in photos])


def assert_recognised(logits):
    # confidence: noise through wrong keys or padding stays flat over 1000 classes
    assert (logits.softmax(1).max(1).values > 0.3).float().mean() >= 0.5
    assert len(set(logits.argmax(1).tolist())) == len(logits)


@pytest.mark.shared
def test_imagenet_weights_recognise_a_photo(shared):
    """The encoder, with the file's own last layers, names the class of most photos: padding and keys are right."""
    recipe = load_config(CONFIGS / "first_network.yaml")
    path = shared / "weights" / recipe.encoder_weights
    encoder = MobileNetV2().eval()
    load_encoder(encoder, path, recipe.encoder_sha256)
    stored = safetensors.torch.load_file(path)
    with torch.no_grad():
        features = encoder(Normalise((127.5,) * 3, (127.5,) * 3)(imagenet_photos(shared)))[-1]
        features = nn.functional.relu6(
            nn.functional.conv2d(features, stored["features.18.0.weight"], stored["features.18.1.bias"])
        )
        assert_recognised(
            nn.functional.linear(features.mean((2, 3)), stored["classifier.1.weight"], stored["classifier.1.bias"])
        )


@pytest.mark.shared
def test_efficientnet_lite_recognises_a_photo(shared):
    recipe = load_config(CONFIGS / "designs" / "lite0.yaml")
    path = shared / "weights" / recipe.encoder_weights
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/weights; docs/training.md says where it comes from")
    network = create_model(recipe.model).eval()
    load_encoder(network.encoder, path, recipe.encoder_sha256)
    stored = torch.load(path, weights_only=True)
    with torch.no_grad():
        features = network.encoder(network.normalise(imagenet_photos(shared)))[-1]
        features = nn.functional.batch_norm(
            nn.functional.conv2d(features, stored["_conv_head.weight"]),
            stored["_bn1.running_mean"],
            stored["_bn1.running_var"],
            stored["_bn1.weight"],
            stored["_bn1.bias"],
            eps=1e-3,
        )
        assert_recognised(
            nn.functional.linear(nn.functional.relu6(features).mean((2, 3)), stored["_fc.weight"], stored["_fc.bias"])
        )
