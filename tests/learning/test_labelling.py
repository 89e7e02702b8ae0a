import numpy as np
import pytest

from training.errors import TrainingError
from training.labelling import Votes, combine, label_pictures


def votes(deeplab, bodypix, selfie):
    return Votes(*(np.array([values], bool) for values in (deeplab, bodypix, selfie)))


def test_two_teachers_make_a_person_and_one_makes_a_question():
    #              d b | d s | b s | d | b | s | none
    label = combine(votes([1, 1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 1, 0]))
    assert label.tolist() == [[255, 255, 255, 127, 127, 0, 0]]


def test_without_deeplab_in_the_picture_the_others_are_not_believed():
    assert combine(votes([0, 0], [1, 0], [1, 1])).tolist() == [[127, 0]]


def test_nothing_to_label_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no pictures to label"):
        label_pictures([], tmp_path, tmp_path, tmp_path)


def test_missing_teachers_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"deeplabv3_mnv2_pascal_quant\.tflite"):
        label_pictures([tmp_path / "a.jpg"], tmp_path, tmp_path, tmp_path / "out")


@pytest.mark.shared
def test_labelling_finds_a_person_and_goes_on_where_it_stopped(shared, tmp_path):
    root = shared / "data"
    photo = root / "truth_person" / "humanseg" / "1.jpg"
    counts = label_pictures([photo], root, shared / "weights", tmp_path)
    assert counts == {"labelled": 1, "kept": 0, "with_person": 1, "broken": 0}
    assert label_pictures([photo], root, shared / "weights", tmp_path)["kept"] == 1
