import pytest
import torch
from torch import nn

from service.contract import IMAGE, INVERSE_DEPTH
from training.models import positions
from training.parity import difference, eager, openvino_runtime
from training.serving import Traits, spec_for
from training.version import comparison_batches, write_onnx

RULES = (positions.bilinear, positions.dinov2, positions.antialiased)


def trained(side, channels=3):
    return torch.randn(1, 1 + side * side, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", RULES)
def test_the_trained_grid_is_kept(rule):
    assert torch.equal(rule(trained(5), 5, 5), trained(5))


@pytest.mark.parametrize("size", [(4, 6), (10, 14), (12, 7), (30, 17)])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (positions.bilinear, {"mode": "bilinear", "align_corners": False}),
        (positions.antialiased, {"mode": "bicubic", "antialias": True}),
    ],
)
def test_other_grids_are_what_torch_interpolates(rule, options, size):
    first, grid = trained(12)[:, :1], trained(12)[:, 1:].reshape(1, 12, 12, 3).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(grid, size=size, **options).permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.allclose(rule(trained(12), *size), torch.cat((first, wanted), dim=1), atol=1e-5)


class Places(nn.Module):
    """The size of each cell's position embedding, laid over the picture."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.register_buffer("trained", trained(24))

    def forward(self, image):
        rows, columns = image.shape[1] // 16, image.shape[2] // 16
        cells = self.rule(self.trained, rows, columns)[:, 1:].abs().sum(2).reshape(1, 1, rows, columns)
        # as large as the picture, and something that depends on it
        spread = cells.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)[:, 0]
        return (spread + image[..., 0] / 255,)


@pytest.mark.parametrize("rule", RULES)
def test_openvino_and_torch_agree_on_every_rule_at_sizes_left_free(rule, tmp_path):
    sizes = ((64, 96), (128, 64), (480, 416))
    network = Places(rule).eval()
    spec = spec_for("depth_places", (IMAGE,), (INVERSE_DEPTH,), sizes, sizes[0], Traits())
    write_onnx(network, spec, 16, tmp_path / "model.onnx")
    found = openvino_runtime(tmp_path / "model.onnx", [INVERSE_DEPTH.name], "f32")
    for batch in comparison_batches([], sizes, count=1):
        errors = difference(found(batch), eager(network)(batch), [INVERSE_DEPTH.name])
        assert errors.depth_largest < 1e-5
