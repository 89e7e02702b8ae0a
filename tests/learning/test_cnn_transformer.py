import pytest
import torch

from training.errors import TrainingError
from training.models import create_model
from training.models.cnn_transformer import CnnTransformer, Coarser, Transformer
from training.models.focus_on_depth import Decoder, Head, Normalise
from training.models.resnet import IMAGENET, ResNetEncoder


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)  # work this small only waits for a second one


def transformer(channels=16, **settings):
    torch.manual_seed(0)
    return Transformer("vit_tiny_patch16_224", channels, depth=1, **settings)


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_one_token_for_every_cell_of_the_last_feature_of_a_picture_of_224():
    seen = []
    part = transformer(grid=7)
    part.blocks.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    finer, coarsest = torch.zeros(1, 4, 14, 14), torch.randn(1, 16, 7, 7)
    result = part([finer, coarsest])
    assert seen == [(1, 49 + 1, 192)]  # and the class token
    assert result[0] is finer
    assert result[1].shape == (1, 192, 7, 7)


def test_patches_of_two_cells_make_a_quarter_of_the_tokens():
    seen = []
    part = transformer(grid=3, patch=2)
    part.blocks.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    assert part([torch.randn(1, 16, 6, 8)])[0].shape == (1, 192, 6, 8)
    assert seen == [3 * 4 + 1]


def test_every_token_sees_every_place():
    part = transformer().eval()
    x = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[..., 3, 3] += 1
    with torch.no_grad():
        moved = (part([x])[0] - part([changed])[0]).abs().amax(dim=1)[0]
    assert (moved > 0).all()


def test_places_tell_equal_cells_apart():
    part = transformer().eval()
    with torch.no_grad():
        result = part([torch.ones(1, 16, 3, 5)])[0]
        torch.nn.init.zeros_(part.places)
        blind = part([torch.ones(1, 16, 3, 5)])[0]
    assert result.flatten(2).std(dim=2).max() > 1e-3
    assert blind.flatten(2).std(dim=2).max() < 1e-5


def test_a_transformer_at_one_sixteenth_gives_the_same_scales():
    encoder = ResNetEncoder("resnet10t", coarsest=16)
    assert not hasattr(encoder.body, "layer4")
    part = torch.nn.Sequential(transformer(encoder.channels[-1], grid=14), Coarser(192))
    features = part(encoder(torch.zeros(1, 3, 64, 96)))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 16, 24), (128, 8, 12), (192, 4, 6), (192, 2, 3)]
    decoder = Decoder((64, 128, 192, 192), (8,) * 4)
    network = CnnTransformer(Normalise(*IMAGENET), encoder, part, decoder, Head(8, 8)).train()
    network(pictures(1, 64, 96)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["vit_of_mars", "resnet18", "vit_wee_patch16_reg1_gap_256"])
def test_what_is_no_vision_transformer_with_a_class_token_is_refused(name):
    with pytest.raises(TrainingError, match=f"transformer {name}"):
        Transformer(name, 16)


@pytest.mark.parametrize(
    ("name", "encoder", "transformer_width"),
    [
        ("cnn_transformer", 86_742_336, 768),
        ("cnn_transformer_cnn", 86_742_336, None),
        ("cnn_transformer_resnet50", 23_508_032, 768),
        ("cnn_transformer_resnet50_cnn", 23_508_032, None),
        ("cnn_transformer_resnet50_sixteenth", 8_543_296, 768),
    ],
)
def test_networks_of_the_paper_are_built_of_their_parts(name, encoder, transformer_width):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.encoder.parameters()) == encoder
    blocks = [module for module in network.transformer.modules() if type(module).__name__ == "Block"]
    assert len(blocks) == (12 if transformer_width else 0)
    assert all(block.norm1.normalized_shape == (transformer_width,) for block in blocks)


@pytest.mark.parametrize("name", ["cnn_transformer_tiny", "cnn_transformer_tiny_cnn"])
def test_depth_is_positive_and_of_the_size_of_the_picture_and_everything_learns(name):
    torch.manual_seed(0)
    network = create_model(name).train()
    depth_m = network(pictures(2, 64, 96))
    assert depth_m.shape == (2, 64, 96)
    assert depth_m.dtype == torch.float32
    assert depth_m.min() > 0
    depth_m.square().mean().backward()
    # zeros for now are the branches whose last norm begins at zero, as timm has it
    assert [key for key, p in network.named_parameters() if p.grad is None] == []
    assert {id(p) for p in network.encoder_parameters()} == {id(p) for p in network.encoder.parameters()}
    assert network.output == "depth_m"


def test_the_student_is_small_and_learns_everywhere():
    network = create_model("cnn_student").train()
    assert sum(p.numel() for p in network.parameters()) < 21_500_000  # MiDaS-small has 21 million
    depth_m = network(pictures(2, 64, 64))
    assert depth_m.shape == (2, 64, 64)
    depth_m.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_the_second_stage_has_the_encoder_of_the_first():
    first, second = create_model("cnn_transformer_tiny_cnn"), create_model("cnn_transformer_tiny")
    second.encoder.load_state_dict(first.encoder.state_dict())
    image = pictures(1, 64, 64)
    with torch.no_grad():
        pairs = zip(first.eval().features(image), second.eval().features(image), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
