"""Seed 3's networks as ONNX graphs of free size agree with themselves in torch.

GhostNet alone takes the exporter ten times as long as a decoder, so decoders are exported behind five plain
convolutions; of GhostNet itself, what would make sizes inexact.
"""

import dataclasses
from functools import partial
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from service.contract import CANARY_SIZE, DEPTH_M, IMAGE, NETWORK_SIZES, TensorSpec
from training.models import stack
from training.models.ghostnet import GhostNetEncoder, HalvingConv2d
from training.models.meta_learner import BASES, Average, ServedMeta
from training.serving import Traits, served, spec_for
from training.version import write_onnx

SIZES = ((64, 96), (96, 64), (128, 160))
META = (IMAGE, *(TensorSpec(f"{name}_m", "float32", (-1, -1), "depth, metres") for name in BASES))


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


class Halvings(nn.Module):
    """Features of as many channels as GhostNet's."""

    def __init__(self, channels, inputs=3):
        super().__init__()
        self.channels = channels
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 2, 2) for before, after in pairwise((inputs, *channels)))

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            features.append(x)
        return features


def session(network, inputs, path):
    spec = spec_for("depth_any", inputs, (DEPTH_M,), NETWORK_SIZES, CANARY_SIZE, Traits())
    write_onnx(network, spec, 32, path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("builder", [stack.adabins_ghost_tiny, stack.bts_ghost_tiny, stack.lapdepth_ghost_tiny])
def test_base_networks(builder, tmp_path):
    torch.manual_seed(0)
    network = builder()
    network.encoder = Halvings(network.encoder.channels)
    network = served(network)
    runtime = session(network, (IMAGE,), tmp_path / "model.onnx")
    for size in SIZES:
        image = pictures(2, *size)
        with torch.no_grad():
            (wanted,) = network(image)
        (found,) = runtime.run(None, {"image": image.numpy()})
        assert found.shape == (2, *size)
        assert np.abs(found - wanted.numpy()).max() < 1e-4
        assert wanted.std() > 1e-3  # a constant would agree with anything


def test_a_stride_of_two_is_exported_as_an_exact_half(tmp_path):
    torch.manual_seed(0)
    network = GhostNetEncoder("ghostnet_050").eval()
    halvings = [module for module in network.modules() if isinstance(module, HalvingConv2d)]
    assert {module.kernel_size[0] for module in halvings} == {3, 5}
    assert not any(module.stride == (2, 2) for module in network.modules() if type(module) is nn.Conv2d)
    three, five = (next(m for m in halvings if m.kernel_size[0] == kernel) for kernel in (3, 5))

    class Halved(nn.Module):
        def forward(self, image):
            x = image.permute(0, 3, 1, 2).float()
            return three(x)[:, 0], five(x[:, :1].expand(-1, five.in_channels, -1, -1))[:, 0]

    path = tmp_path / "model.onnx"
    half = TensorSpec("half", "float32", (-1, -1), "")
    spec = spec_for("any", (IMAGE,), (half, dataclasses.replace(half, name="other")), NETWORK_SIZES, (64, 64), Traits())
    write_onnx(Halved().eval(), spec, 32, path)
    found = onnxruntime.InferenceSession(str(path)).run(None, {"image": pictures(1, 64, 96).numpy()})
    with torch.no_grad():
        for f, wanted in zip(found, Halved()(pictures(1, 64, 96)), strict=True):
            assert f.shape == (1, 32, 48)
            np.testing.assert_allclose(f, wanted.numpy(), atol=1e-3)
    names = [[dim.dim_param for dim in o.type.tensor_type.shape.dim] for o in onnx.load(path).graph.output]
    # 16 times a number, without a rounding
    assert all(side.startswith("16*") for shape in names for side in shape[1:])


def small_meta_learner(variant, inputs):
    torch.manual_seed(0)
    meta = stack.meta_learner_tiny(variant)
    meta.encoder = Halvings(meta.encoder.channels, inputs)
    nn.init.normal_(meta.last.weight)
    return meta


VARIANTS = {
    "average": Average,
    "d": partial(small_meta_learner, "d", 3),
    "rgb": partial(small_meta_learner, "rgb", 3),
    "rgbd": partial(small_meta_learner, "rgbd", 6),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_what_weighs_the_bases_as_a_graph_of_its_own(make, tmp_path):
    meta = make()
    network = ServedMeta(meta).eval()
    path = tmp_path / "model.onnx"
    runtime = session(network, META, path)
    assert [tensor.name for tensor in runtime.get_inputs()] == ["image", "adabins_m", "bts_m", "lapdepth_m"]
    assert [tensor.name for tensor in runtime.get_outputs()] == ["depth_m"]
    names = [tensor.name for tensor in META]
    for size in SIZES:
        image = pictures(2, *size)
        said = [torch.rand(2, *size, generator=torch.Generator().manual_seed(k)) * 9 + 0.5 for k in range(3)]
        with torch.no_grad():
            wanted = network(image, *said).numpy()
        values = {name: value.numpy() for name, value in zip(names, (image, *said), strict=True)}
        (found,) = runtime.run(None, values)
        assert np.abs(found - wanted).max() < 1e-4
    # no constant of a device or of the example's size
    dims = [[d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in onnx.load(path).graph.input]
    assert all(isinstance(d, str) for shape in dims for d in shape[:3])
