"""What an exported network says of itself, written as `config.pbtxt` and read back by Triton's own parser."""

import pytest
import torch
from google.protobuf import json_format, text_format
from torch import nn
from tritonclient.grpc import model_config_pb2

from service.contract import DEPTH_M, IMAGE, INVERSE_DEPTH, MODELS, NETWORK_SIZES, PERSON, TensorSpec, spec_of
from training.errors import TrainingError
from training.export import pair
from training.serving import (
    ServedMap,
    Step,
    Traits,
    canary_size,
    check_name,
    ensemble_config,
    network_config,
    outputs_of,
    served_sizes,
    spec_for,
)

SIZES = ((64, 64), (64, 96))
META_INPUTS = (IMAGE, TensorSpec("bts_m", "float32", (-1, -1), "depth in metres, of the network of that name"))


def as_triton_gives_it(text):
    """The configuration as the gateway gets it from a server."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    return json_format.MessageToDict(config, preserving_proto_field_name=True)


class Gray(nn.Module):
    """Mean of the colours, minus one half."""

    def __init__(self, output=None, stride=32, least=1):
        super().__init__()
        if output is not None:
            self.output = output
        self.stride, self.least = stride, least

    def forward(self, image):
        if image.shape[1] < self.least:
            raise TrainingError("too small")
        return image.float().mean(3) / 255 - 0.5


@pytest.mark.parametrize("outputs", [(DEPTH_M,), (INVERSE_DEPTH,), (PERSON,), (INVERSE_DEPTH, PERSON)])
@pytest.mark.parametrize("traits", [Traits(), Traits('says "no" \\ and\nmore', "MIT", 0.81)])
def test_what_is_written_is_what_the_gateway_reads(outputs, traits):
    spec = spec_for("depth_x", (IMAGE,), outputs, SIZES, (32, 32), traits)
    read = spec_of(as_triton_gives_it(network_config(spec)))
    assert read == spec_for(
        "depth_x",
        (IMAGE,),
        outputs,
        SIZES,
        (32, 32),
        Traits(traits.description.replace("\n", " "), traits.license, traits.focal_share),
    )
    assert (
        read.tasks
        == {
            (DEPTH_M,): {"depth"},
            (INVERSE_DEPTH,): {"depth"},
            (PERSON,): {"segmentation"},
            (INVERSE_DEPTH, PERSON): {"depth", "segmentation", "focus"},
        }[outputs]
    )


def test_every_size_is_warm_and_the_precision_is_said():
    spec = spec_for("depth_x", (IMAGE,), (DEPTH_M,), SIZES, (32, 32), Traits())
    config = as_triton_gives_it(network_config(spec, bf16=False))
    assert [sample["name"] for sample in config["model_warmup"]] == ["64x64", "64x96", "32x32"]
    assert config["parameters"]["HINT_BF16"]["string_value"] == "NO"
    assert "HINT_BF16" not in as_triton_gives_it(network_config(spec))["parameters"]


def test_a_meta_learner_answers_no_photo():
    spec = spec_for("depth_meta", META_INPUTS, (DEPTH_M,), SIZES, (32, 32), Traits())
    read = spec_of(as_triton_gives_it(network_config(spec)))
    assert (read.takes_image, read.tasks, read.inputs) == (False, frozenset(), META_INPUTS)


def test_an_ensembles_steps():
    spec = spec_for("depth_stacked", (IMAGE,), (DEPTH_M,), SIZES, (32, 32), Traits(), steps=True)
    steps = [
        Step("depth_bts", {"image": "image"}, {"depth_m": "bts_m"}),
        Step("m", {"bts_m": "bts_m"}, {"d": "depth_m"}),
    ]
    config = as_triton_gives_it(ensemble_config(spec, steps))
    assert spec_of(config) == spec
    assert [step["model_name"] for step in config["ensemble_scheduling"]["step"]] == ["depth_bts", "m"]
    assert config["ensemble_scheduling"]["step"][0]["output_map"] == {"depth_m": "bts_m"}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {}},
        {"parameters": {"depthlens_sizes": {"string_value": "large"}}},
        {"output": [{"name": "normals", "data_type": "TYPE_FP32", "dims": ["-1", "-1"]}]},
        {"output": []},
        {"input": [{"name": "image", "data_type": "TYPE_STRING", "dims": ["1"]}]},
    ],
    ids=str,
)
def test_a_model_that_is_none_of_ours_is_not_served(change):
    spec = spec_for("depth_x", (IMAGE,), (DEPTH_M,), SIZES, (32, 32), Traits())
    with pytest.raises(ValueError, match=r"is no list of sizes|no known outputs|has the type"):
        spec_of(as_triton_gives_it(network_config(spec)) | change)


def test_sizes_are_multiples_of_the_stride():
    assert served_sizes(Gray(stride=32)) == served_sizes(Gray(stride=16)) == NETWORK_SIZES
    assert served_sizes(Gray(stride=14))[:2] == ((322, 322), (294, 378))
    large = served_sizes(Gray(stride=14), 518)
    assert large[0] == (518, 518)
    assert all(
        side % 14 == 0 and 0.8 < height * width / 518**2 < 1.2 for height, width in large for side in (height, width)
    )


def test_the_probe_is_as_small_as_the_network_allows():
    assert canary_size(Gray(), NETWORK_SIZES) == (64, 64)
    assert canary_size(Gray(stride=14), ((322, 322), (294, 378))) == (70, 70)
    assert canary_size(Gray(least=200), NETWORK_SIZES) == (224, 416)
    assert canary_size(Gray(), ((384, 384),)) == (384, 384)


def test_maps_are_held_to_the_contracts_range():
    black = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert ServedMap(Gray(), "depth_m")(black)[0].max() == pytest.approx(1e-3)
    assert ServedMap(Gray(), "inverse_depth")(black)[0].max() == 0
    assert ServedMap(Gray(), "person")(black)[0].max() == pytest.approx(torch.tensor(-0.5).sigmoid())


def test_names_and_outputs():
    assert outputs_of(Gray()) == MODELS["focus_on_depth"].outputs
    assert outputs_of(Gray("depth_m")) == (DEPTH_M,)
    with pytest.raises(TrainingError, match="gives 'normals'; served are"):
        outputs_of(Gray("normals"))
    with pytest.raises(TrainingError, match="name it otherwise, with --model"):
        check_name("focus_on_depth", (DEPTH_M,))


def test_a_pair_needs_both_and_a_size_in_common(tmp_path):
    def exported(name, outputs, sizes):
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        about = {"outputs": outputs, "sizes": sizes, "canary_size": sizes[0], "sha256": "0"}
        (folder / "metadata.json").write_text(__import__("json").dumps(about))

    exported("depth_x", ["depth_m"], [[64, 64], [64, 96]])
    exported("segmentation_x", ["person"], [[64, 96], [96, 96]])
    exported("segmentation_y", ["person"], [[480, 480]])
    metadata = pair("depth_x", "segmentation_x", "focus_x", tmp_path)
    spec = spec_of(as_triton_gives_it((tmp_path / "focus_x" / "config.pbtxt").read_text()))
    assert (spec.tasks, spec.sizes, spec.depth_kind) == ({"depth", "segmentation", "focus"}, ((64, 96),), "metric")
    assert metadata["steps"] == {"depth_x": "0", "segmentation_x": "0"}
    for depth, segmentation, message in (
        ("depth_x", "segmentation_y", "share no input size"),
        ("segmentation_x", "segmentation_y", "gives no depth"),
        ("depth_x", "depth_x", "gives no person"),
        ("depth_z", "segmentation_x", "export it first"),
    ):
        with pytest.raises(TrainingError, match=message):
            pair(depth, segmentation, "focus_x", tmp_path)
