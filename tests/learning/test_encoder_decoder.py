import copy
import hashlib

import pytest
import timm
import torch
from torch import nn

from training.errors import TrainingError
from training.models import create_model
from training.models.encoder_decoder import TransposedDecoder
from training.models.encoder_weights import load_encoder
from training.models.frozen import freeze
from training.models.resnet import ResNetEncoder

FROZEN = ("encoder.body.conv1", "encoder.body.bn1", "encoder.body.layer1", "encoder.body.layer2")


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)  # work this small only waits for a second one


def tiny():
    torch.manual_seed(0)
    return create_model("resnet50_encoder_decoder_tiny")


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_seeds_network_has_its_number_of_parameters():
    with torch.device("meta"):
        network = create_model("resnet50_encoder_decoder")
    assert count(network.encoder) == 23_508_032
    assert count(network.decoder) == 19_533_633
    assert count(network) == 43_041_665
    assert network.encoder.channels == (256, 512, 1024, 2048)


def test_five_transposed_convolutions_double_the_size_and_only_four_have_norm_and_relu():
    decoder = TransposedDecoder((512, 32, 16, 16, 8)).eval()
    kinds = [type(layer).__name__ for layer in decoder.body]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 4 + ["ConvTranspose2d"]
    assert decoder(torch.zeros(2, 512, 2, 3)).shape == (2, 64, 96)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_depth_has_the_size_of_the_picture_and_is_a_millimetre_at_least(size):
    network = tiny().eval()
    nn.init.constant_(network.decoder.body[-1].bias, -5)
    with torch.no_grad():
        depth_m = network(pictures(2, *size))
        network.train()
        unbounded = network(pictures(2, *size))
    assert depth_m.shape == (2, *size)
    assert depth_m.dtype == torch.float32
    assert depth_m.unique().tolist() == pytest.approx([0.001])
    assert unbounded.max() < 0


def test_features_lead_to_the_same_depth():
    network = tiny().eval()
    image = pictures(1, 64, 96)
    with torch.no_grad():
        features = network.features(image)
        assert torch.equal(network.decode(features), network(image))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    assert {id(p) for p in network.encoder_parameters()} == {id(p) for p in network.encoder.parameters()}


def test_frozen_parts_are_bit_equal_after_training_and_the_rest_has_moved():
    network = tiny()
    before = copy.deepcopy(network.state_dict())
    freeze(network, FROZEN)
    # weight decay and momentum would move what a zero gradient alone leaves where it is
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        freeze(network.train(), FROZEN)
        optimizer.zero_grad()
        network(pictures(2, 64, 64)).square().mean().backward()
        optimizer.step()
    after = network.state_dict()
    kept = {key for key in before if key.startswith(tuple(f"{part}." for part in FROZEN))}
    assert {key for key in before if torch.equal(before[key], after[key])} == kept
    assert sum("running_" in key for key in kept) == 2 * sum(
        isinstance(module, nn.BatchNorm2d) for part in FROZEN for module in network.get_submodule(part).modules()
    )


def test_frozen_weights_alone_would_not_keep_batch_norm():
    network = tiny()
    for part in FROZEN:
        network.get_submodule(part).requires_grad_(False)
    before = network.encoder.body.bn1.running_mean.clone()
    network.train()(pictures(2, 64, 64))
    assert not torch.equal(network.encoder.body.bn1.running_mean, before)


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(TrainingError, match=r"no part 'encoder.layer9' in EncoderDecoder; it has .*encoder, decoder"):
        freeze(tiny(), ["encoder.layer9"])


@pytest.mark.parametrize("name", ["resnet_of_mars", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_an_encoder_that_is_no_residual_network_is_refused(name):
    with pytest.raises(TrainingError, match=f"encoder {name}"):
        ResNetEncoder(name)


def test_a_file_with_torchvisions_names_starts_the_encoder(tmp_path):
    torch.manual_seed(1)
    published, encoder = timm.create_model("resnet10t").eval(), ResNetEncoder("resnet10t").eval()
    state = {key: value for key, value in published.state_dict().items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / "resnet10t.pth"
    torch.save(state, path)
    load_encoder(encoder, path, hashlib.sha256(path.read_bytes()).hexdigest())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(image)[-1], published.forward_features(image))
    del state["layer3.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(TrainingError, match=r"no tensor layer3\.0\.conv1\.weight"):
        load_encoder(encoder, path, hashlib.sha256(path.read_bytes()).hexdigest())
