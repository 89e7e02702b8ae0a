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


def test_the_selfie_network_draws_the_outline_of_people_all_three_see():
    shape = (200, 200)
    deeplab, bodypix, selfie = (np.zeros(shape, bool) for _ in range(3))
    selfie[50:150, 50:150] = True
    deeplab[47:153, 47:153] = bodypix[47:153, 47:153] = True  # both a rim of 3 pixels wider
    deeplab[10:30, 170:190] = bodypix[10:30, 170:190] = True  # a second, small person
    bodypix[180:195, 10:20] = True  # one teacher alone
    label = combine(Votes(deeplab, bodypix, selfie))
    assert (label == 255)[50:150, 50:150].all()
    assert not label[40:50, 40:160].any()
    assert (label[10:30, 170:190] == 255).mean() > 0.95
    assert (label[180:195, 10:20] == 127).all()
    # two people, of whom the selfie network sees one: no outline of its is trusted
    deeplab[:, 100:] = bodypix[:, 100:] = True
    assert (combine(Votes(deeplab, bodypix, selfie))[47:50, 50:90] == 255).all()


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
