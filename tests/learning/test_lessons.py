import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from training.data.sample import BrokenSampleError
from training.distillation import align_teacher
from training.errors import TrainingError
from training.lessons import NetworkTeacher, PictureTeacher, batch_teacher
from training.models import create_model
from training.trainer import LAST, train

WEIGHTS = Path(training.__file__).parent / "weights"


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def image():
    return torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_network_with_two_heads_teaches_its_depth_and_its_features(image):
    torch.manual_seed(0)
    network = create_model("focus_on_depth_tiny")
    lesson = NetworkTeacher(network)(image)
    with torch.no_grad():
        assert torch.equal(lesson.inverse_depth, network(image)[0])
    assert [f.shape[2] for f in lesson.features] == [32, 16, 8, 4, 2]
    assert not lesson.inverse_depth.requires_grad
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_metric_network_teaches_the_inverse_of_its_depth(image):
    torch.manual_seed(0)
    network = create_model("cnn_transformer_tiny_cnn")
    lesson = NetworkTeacher(network)(image)
    with torch.no_grad():
        torch.testing.assert_close(lesson.inverse_depth, 1 / network(image))


def test_pictures_are_shown_one_by_one_and_a_refused_one_teaches_nothing(image):
    def see(picture):
        if not picture.any():
            raise BrokenSampleError("too dark")
        return picture[..., 0].astype(np.float32)

    image[1] = 0
    lesson = PictureTeacher(see)(image)
    assert torch.equal(lesson.inverse_depth[0], image[0, ..., 0].float())
    assert lesson.features == []
    aligned = align_teacher(lesson.inverse_depth, 1 + lesson.inverse_depth.flip(0))
    assert not aligned[1].any()


def test_a_checkpoint_teaches_with_its_averaged_weights(image, tiny, bank, tmp_path):
    run = train(dataclasses.replace(tiny, steps=1, final_steps=0), bank, None, tmp_path, resume=False)
    average = run.average.eval()
    for teacher in (batch_teacher(str(tmp_path / LAST), None), batch_teacher(LAST, tmp_path)):
        with torch.no_grad():
            assert torch.equal(teacher(image).inverse_depth, average(image)[0])


def test_committed_weights_teach_by_their_name(image):
    name = "focus_on_depth.safetensors"
    digest = hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest()
    lesson = batch_teacher(name, None, sha256=digest)(image)
    assert lesson.inverse_depth.shape == (2, 64, 96)
    assert len(lesson.features) == 5
    with pytest.raises(TrainingError, match=f"SHA-256 is {digest}, the recipe pins 0"):
        batch_teacher(name, None, sha256="0")
    with pytest.raises(TrainingError, match=r"teacher weights none.safetensors: not readable"):
        batch_teacher("none.safetensors", Path())


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"checkpoint not found: .*none\.pt"):
        batch_teacher("none.pt", tmp_path)
    with pytest.raises(TrainingError, match="no depth teacher 'midas'"):
        batch_teacher("midas", tmp_path)


@pytest.mark.shared
def test_meter_teaches_a_batch(image, shared):
    lesson = batch_teacher("meter_nyu", shared / "weights")(image)
    assert lesson.inverse_depth.shape == (2, 64, 96)
    assert lesson.inverse_depth.min() > 0
