import pytest
import safetensors.torch
import timm
import torch

from training.export import file_sha256
from training.models import create_model
from training.models.encoder_weights import load_encoder
from training.models.focus_on_depth_vit import AddClass, FocusOnDepthVit, IgnoreClass, Unit
from training.optimizer import encoder_parameters


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("focus_on_depth_vit_base", 104_047_499),
        ("focus_on_depth_vit_large", 325_836_939),
        # four projections of 2 * 768 to 768 less
        ("focus_on_depth_vit_base_add", 104_047_499 - 4 * (2 * 768 * 768 + 768)),
        ("focus_on_depth_vit_base_ignore", 104_047_499 - 4 * (2 * 768 * 768 + 768)),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        network = create_model(name)
    assert count(network) == parameters


def test_parts_of_the_base_network_have_theirs():
    with torch.device("meta"):
        network = create_model("focus_on_depth_vit_base")
        small = FocusOnDepthVit("vit_tiny_patch16_384", (2, 5, 8, 11))
    parts = (network.encoder, network.reassembles, network.fusions, network.depth_head, network.person_head)
    assert [count(part) for part in parts] == [86_859_496, 7_082_752, 9_441_280, 331_969, 332_002]
    assert count(small) == 17_962_571
    assert len(network.state_dict()) == 218
    assert sum(p.numel() for p in encoder_parameters(network)) == 86_859_496


def test_the_shortcut_of_a_unit_is_what_an_in_place_relu_leaves():
    unit = Unit(2)
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    for convolution in (unit.conv1, unit.conv2):
        torch.nn.init.zeros_(convolution.weight)
        torch.nn.init.zeros_(convolution.bias)
    assert unit(x).flatten().tolist() == [0.0, 2.0]
    assert x.flatten().tolist() == [-1.0, 2.0]


def test_what_becomes_of_the_class_token():
    tokens, readout = torch.ones(1, 2, 2, 2), torch.tensor([[10.0, 20.0]])
    assert torch.equal(IgnoreClass()(tokens, readout), tokens)
    assert AddClass()(tokens, readout)[0, :, 1, 0].tolist() == [11.0, 21.0]


def test_depth_lies_between_0_and_1_at_any_size():
    torch.manual_seed(0)
    network = create_model("focus_on_depth_vit_base_tiny").eval()
    image = torch.randint(0, 256, (1, 96, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inverse, person = network(image)
    assert inverse.shape == person.shape == (1, 96, 64)
    assert 0 < inverse.min() < inverse.max() < 1


def test_two_classes_and_one_logit_are_the_same_cross_entropy():
    classes = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[[0, 1, 1]] * 3] * 2)
    one = torch.nn.functional.binary_cross_entropy_with_logits(classes[:, 1] - classes[:, 0], target.float())
    assert one.item() == pytest.approx(torch.nn.functional.cross_entropy(classes, target).item(), rel=1e-5)


def test_the_transformer_starts_from_timms_own_weights(tmp_path):
    stored = timm.create_model("vit_tiny_patch16_384")
    path = tmp_path / "vit_tiny_patch16_384.safetensors"
    safetensors.torch.save_file(stored.state_dict(), path)
    network = create_model("focus_on_depth_vit_base_tiny")
    load_encoder(network.encoder, path, file_sha256(path))
    assert all(torch.equal(value, stored.state_dict()[key]) for key, value in network.encoder.state_dict().items())
