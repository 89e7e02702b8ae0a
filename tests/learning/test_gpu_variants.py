"""Other forms beside an exported network: what is written, what is refused, what serves instead."""

import argparse
import dataclasses
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import nn
from tritonclient.grpc import model_config_pb2

from service.contract import DEPTH_M, IMAGE, MODELS, PERSON
from training import export_command, tensorrt
from training.aoti import find_compiler, write_aoti
from training.checkpoint import load_averaged
from training.config import parse_config
from training.errors import TrainingError
from training.export import Provenance, Request, export, file_sha256
from training.parity import difference, onnx_runtime
from training.serving import Traits, aoti_config, one_step_config, spec_for, tensorrt_config, torchscript_config
from training.tensorrt import PlanError, build_command, build_plan, exported, fall_back, find_trtexec, plan_name, probe
from training.trainer import Run
from training.version import write_onnx

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "support" / "trtexec.py"
SIZES = ((64, 96), (96, 64))
PROVENANCE = Provenance("runs/tiny/last.pt", "0" * 64, {})


@pytest.fixture
def trtexec(tmp_path):
    """The stand-in as an executable."""
    path = tmp_path / "bin" / "trtexec"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def repository(tmp_path):
    """The committed default model, which is small, under a name of its own with two sizes."""
    folder = tmp_path / "models" / "depth_small" / "1"
    folder.mkdir(parents=True)
    source = ROOT / "model_repository" / "focus_on_depth" / "1"
    shutil.copy(source / "model.onnx", folder)
    metadata = json.loads((source / "metadata.json").read_text())
    told = {"sizes": [list(size) for size in SIZES], "canary_size": [64, 64], "outputs": ["inverse_depth", "person"]}
    (folder / "metadata.json").write_text(json.dumps(metadata | told))
    return tmp_path / "models"


def test_a_plan_is_built_compared_and_named_after_its_gpu(repository, trtexec, tmp_path):
    model = exported(repository, "depth_small")
    assert model.sizes == (*SIZES, (64, 64))
    about = build_plan(model, trtexec, "8.9", tmp_path / "cache" / "timing")
    plan = repository / "depth_small" / "1" / "model.sm89.plan"
    engine = json.loads(plan.read_text())
    assert engine["profiles"]["min"] == ["image:1x64x96x3", "image:1x96x64x3", "image:1x64x64x3"]
    assert engine["profiles"]["max"] == ["image:8x64x96x3", "image:8x96x64x3", "image:8x64x64x3"]
    assert 0 < about["parity"]["depth_mean"] < 0.01, "float16 differs, and little"
    told = json.loads((plan.parent / "metadata.json").read_text())["variants"]["tensorrt"]
    assert told == {"8.9": about}
    assert (tmp_path / "cache" / "timing").exists()
    assert [path.name for path in plan.parent.glob(".plan-*")] == []


def of_one_size(repository):
    """The same with one profile instead of three: the stand-in is a process for each."""
    path = repository / "depth_small" / "1" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sizes": [[64, 64]]}))
    return repository


def test_a_plan_that_differs_is_refused_and_what_was_there_stays(repository, trtexec, tmp_path, monkeypatch):
    model = exported(of_one_size(repository), "depth_small")
    before = {path.name for path in model.folder.iterdir()}
    monkeypatch.setenv("BIAS", "0.2")
    with pytest.raises(PlanError, match="differs from model"):
        build_plan(model, trtexec, "8.9", tmp_path / "timing")
    assert {path.name for path in model.folder.iterdir()} == before


def test_a_build_that_fails_says_trtexecs_reason(repository, tmp_path):
    broken = tmp_path / "trtexec"
    broken.write_text("#!/bin/sh\necho '[E] [TRT] no CUDA device'\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(PlanError, match=r"trtexec failed with 3: \[E\] \[TRT\] no CUDA device"):
        build_plan(exported(repository, "depth_small"), broken, "8.9", tmp_path / "timing")


def test_without_a_plan_torchscript_serves_and_a_warning_says_why(repository, trtexec, capsys, monkeypatch):
    folder = of_one_size(repository) / "depth_small"
    (folder / "configs").mkdir()
    (folder / "configs" / "torchscript.pbtxt").write_text('platform: "pytorch_libtorch"\n')
    (folder / "1" / "model.pt").write_bytes(b"a trace")
    monkeypatch.setenv("BIAS", "0.2")
    monkeypatch.setattr(tensorrt, "compute_capability", lambda: "9.0")
    parser = argparse.ArgumentParser()
    export_command.add_export(parser)
    words = ["--target", "tensorrt", "--model", "depth_small", "--repository", str(repository)]
    arguments = parser.parse_args([*words, "--trtexec", str(trtexec), "--timing-cache", str(repository / "timing")])
    arguments.run(arguments)
    assert "warning: depth_small is served as TorchScript" in capsys.readouterr().err
    said = (folder / "configs" / "tensorrt.pbtxt").read_text()
    assert "pytorch_libtorch" in said
    assert said.startswith("# TorchScript, because: the plan of depth_small differs")


def test_without_torchscript_either_the_build_fails(repository):
    assert not fall_back(repository, "depth_small", "no")


def test_what_cannot_be_built_is_said_in_one_line(repository, tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match="export it first"):
        exported(repository, "depth_other")
    with pytest.raises(TrainingError, match="no trtexec at"):
        find_trtexec(tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match="no NVIDIA GPU"):
        tensorrt.compute_capability()


def test_the_build_asks_for_every_profile_in_the_order_of_the_config():
    command = build_command(Path("trtexec"), Path("h.onnx"), Path("m.plan"), SIZES, Path("t"))
    assert command[:5] == ["trtexec", "--onnx=h.onnx", "--saveEngine=m.plan", "--stronglyTyped", "--skipInference"]
    assert command[6:10] == [
        "--profile=0",
        "--minShapes=image:1x64x96x3",
        "--optShapes=image:4x64x96x3",
        "--maxShapes=image:8x64x96x3",
    ]
    assert plan_name("12.0") == "model.sm120.plan"
    assert plan_name("6.1") == "model.plan"


@pytest.mark.parametrize("write", [torchscript_config, tensorrt_config], ids=["torchscript", "tensorrt"])
@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.kind == "network"])
def test_committed_gpu_configs_are_the_contract_in_tritons_own_words(write, name):
    spec = MODELS[name]
    variant = write.__name__.removesuffix("_config")
    text = (ROOT / "model_repository" / name / "configs" / f"{variant}.pbtxt").read_text()
    assert text == write(spec), f"write it anew: training.serving.{write.__name__}"
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [entry.name for entry in config.input] == [tensor.name for tensor in spec.inputs]
    assert [entry.name for entry in config.output] == [tensor.name for tensor in spec.outputs]
    assert all(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    assert {tuple(w.inputs["image"].dims) for w in config.model_warmup} == {
        (*size, 3) for size in (*spec.sizes, spec.canary_size)
    }
    if variant == "tensorrt":
        assert list(config.instance_group[0].profile) == [str(number) for number in range(len(spec.sizes) + 1)]
        assert config.cc_model_filenames["9.0"] == "model.sm90.plan"


@pytest.fixture(scope="module")
def checkpoint(tiny):
    return Run.start(tiny, None).checkpoint(tiny, "abc")


@pytest.fixture(scope="module")
def version(checkpoint, tmp_path_factory):
    """A repository with one exported network; to be copied before it is added to."""
    repository = tmp_path_factory.mktemp("version")
    export(checkpoint, PROVENANCE, [], repository, Request(name="depth_tiny", sizes=SIZES))
    return repository


def test_torchscript_joins_the_version_it_agrees_with(checkpoint, version, tmp_path):
    shutil.copytree(version, tmp_path, dirs_exist_ok=True)
    request = Request(name="depth_tiny", sizes=SIZES, target="torchscript")
    metadata = export(checkpoint, PROVENANCE, [], tmp_path, request)
    folder = tmp_path / "depth_tiny" / "1"
    assert metadata == json.loads((folder / "metadata.json").read_text())
    assert metadata["variants"]["torchscript"]["parity"]["depth_largest"] < 1e-4
    assert metadata["sha256"] == file_sha256(folder / "model.onnx"), "what the ONNX file said of itself stays"
    image = probe(SIZES[0], 0)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        found = tuple(each.numpy() for each in torch.jit.load(folder / "model.pt")(torch.from_numpy(image)))
    wanted = onnx_runtime(folder / "model.onnx", ["inverse_depth", "person"])(image)
    assert difference(found, wanted).depth_largest < 1e-3
    config = (tmp_path / "depth_tiny" / "configs" / "torchscript.pbtxt").read_text()
    assert text_format.Parse(config, model_config_pb2.ModelConfig()).platform == "pytorch_libtorch"
    assert (tmp_path / "depth_tiny" / "configs" / "tensorrt.pbtxt").is_file(), "a plan may be built at once"


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"seed": 1}, "other weights"), ({"sizes": ((64, 64),)}, "other sizes"), ({"name": "depth_new"}, "as onnx first")],
)
def test_torchscript_of_something_else_is_refused(checkpoint, tiny, version, tmp_path, changed, message):
    shutil.copytree(version, tmp_path, dirs_exist_ok=True)
    other = (
        Run.start(dataclasses.replace(tiny, seed=99), None).checkpoint(tiny, "abc") if "seed" in changed else checkpoint
    )
    wanted = {"name": "depth_tiny", "sizes": SIZES} | {key: value for key, value in changed.items() if key != "seed"}
    with pytest.raises(TrainingError, match=message):
        export(other, PROVENANCE, [], tmp_path, Request(**wanted, target="torchscript"))
    assert not list(tmp_path.glob("*/1/model.pt"))


def test_weights_alone_serve_with_the_recipe_of_the_version(tmp_path):
    version = ROOT / "model_repository" / "focus_on_depth" / "1" / "metadata.json"
    weights = ROOT / "training" / "weights" / "focus_on_depth_second_round.safetensors"
    config = parse_config(json.loads(version.read_text())["config"], "the version")
    assert load_averaged(weights, config).step == 2300
    with pytest.raises(
        TrainingError, match=r"weights .* of focus_on_depth_sharp, wanted are those of focus_on_depth_crisp: "
    ):
        load_averaged(weights.with_name("focus_on_depth.safetensors"), config)
    with pytest.raises(TrainingError, match="weights not found"):
        load_averaged(tmp_path / "none.safetensors", config)


class Small(nn.Module):
    """Depth and people by one convolution: compiling a network takes a minute, compiling this some seconds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, 4, 4)

    def forward(self, image):
        found = self.layer(image.permute(0, 3, 1, 2).float() / 255)
        found = nn.functional.interpolate(found, scale_factor=4, mode="bilinear", align_corners=False)
        return found[:, 0].exp(), found[:, 1].sigmoid()


SMALL = spec_for("depth_small", (IMAGE,), (DEPTH_M, PERSON), SIZES, (64, 64), Traits())


def picture(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def exported_small(repository):
    folder = repository / "depth_small" / "1"
    folder.mkdir(parents=True)
    write_onnx(Small().eval(), SMALL, 32, folder / "model.onnx")
    (folder / "metadata.json").write_text(json.dumps({"sizes": [list(size) for size in SIZES]}))
    return folder


@pytest.mark.timeout(900)  # a compiler reads all of torch's headers
def test_a_compiled_package_joins_the_version_it_agrees_with(tmp_path):
    try:
        find_compiler()
    except TrainingError as reason:
        pytest.skip(str(reason))
    folder = exported_small(tmp_path)
    batches = [picture(3, *size) for size in SIZES]
    metadata = write_aoti(Small().eval(), SMALL, 32, batches, tmp_path)
    path = tmp_path / "depth_small_pt2" / "1" / "model.pt2"
    assert metadata == json.loads((folder / "metadata.json").read_text())
    assert metadata["variants"]["torch_aoti"]["sha256"] == file_sha256(path)
    assert metadata["variants"]["torch_aoti"]["parity"]["depth_largest"] < 1e-5

    loaded = torch._inductor.aoti_load_package(str(path))
    image = picture(1, 128, 160)  # a batch and a size that nobody compiled or compared
    found = tuple(each.numpy() for each in loaded(torch.from_numpy(image)))
    wanted = onnx_runtime(folder / "model.onnx", ["depth_m", "person"])(image)
    assert difference(found, wanted, ["depth_m", "person"]).depth_largest < 1e-5
    assert difference(found, wanted, ["depth_m", "person"]).person_largest < 1e-5

    # Triton's platform maps INPUT__n and OUTPUT__n by these: a tuple of one tensor in, a tuple of two out
    given, gives = (json.loads(said)[1] for said in loaded.loader.get_call_spec())
    assert [child["type"] for child in given["children_spec"]] == ["builtins.tuple", "builtins.dict"]
    assert (len(given["children_spec"][0]["children_spec"]), len(gives["children_spec"])) == (1, 2)

    step = read_config(tmp_path / "depth_small_pt2" / "configs" / "torch_aoti.pbtxt")
    assert (step.platform, step.default_model_filename) == ("torch_aoti", "model.pt2")
    own = read_config(tmp_path / "depth_small" / "configs" / "torch_aoti.pbtxt")
    assert own.ensemble_scheduling.step[0].model_name == "depth_small_pt2"
    assert not (tmp_path / "depth_small_pt2" / "config.pbtxt").exists(), "servers of another configuration pass it by"


def read_config(path):
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_ensemble_gives_a_package_s_tensors_the_contract_s_names(device):
    spec = MODELS["focus_on_depth"]
    step_text = aoti_config(dataclasses.replace(spec, name="focus_on_depth_pt2"), device)
    step = text_format.Parse(step_text, model_config_pb2.ModelConfig())
    own = text_format.Parse(one_step_config(spec, "focus_on_depth_pt2"), model_config_pb2.ModelConfig())
    assert [entry.name for entry in step.input] == ["INPUT__0"]
    assert [entry.name for entry in step.output] == ["OUTPUT__0", "OUTPUT__1"]
    assert [entry.name for entry in own.output] == ["inverse_depth", "person"]
    for side in ("input", "output"):
        theirs, ours = getattr(step, side), getattr(own, side)
        assert [(e.data_type, list(e.dims)) for e in theirs] == [(e.data_type, list(e.dims)) for e in ours]
    scheduled = own.ensemble_scheduling.step[0]
    assert (scheduled.model_name, dict(scheduled.input_map)) == (step.name, {"INPUT__0": "image"})
    assert dict(scheduled.output_map) == {"OUTPUT__0": "inverse_depth", "OUTPUT__1": "person"}
    kind = getattr(model_config_pb2.ModelInstanceGroup, "KIND_GPU" if device == "cuda" else "KIND_CPU")
    assert [group.kind for group in step.instance_group] == [kind]
    assert {tuple(w.inputs["INPUT__0"].dims) for w in step.model_warmup} == {
        (*size, 3) for size in (*spec.sizes, spec.canary_size)
    }
    assert step.max_batch_size == own.max_batch_size == spec.max_batch_size


def test_without_a_compiler_nothing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "a-compiler-that-is-not-there"))
    with pytest.raises(TrainingError, match=r"--target aoti needs a C\+\+ compiler: install g\+\+, or name one in CXX"):
        write_aoti(Small().eval(), SMALL, 32, [], tmp_path)
    assert list(tmp_path.iterdir()) == []
