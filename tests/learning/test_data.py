import json
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from service.imaging.geometry import Letterbox
from training.data import person, rgbd
from training.data.bank import Bank, Sampler, fill, is_held_out, part_of, readers, reduce
from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.data.synthetic.dataset import read_scene, read_scenes
from training.data.transforms import (
    NO_LABEL,
    Augmentation,
    jitter,
    letterbox_map,
    random_map,
    square_map,
    view,
    warp,
    whole_map,
)
from training.data.truth import depth_truth
from training.errors import TrainingError


def coded(height=60, width=80):
    """A sample whose picture, depth and mask all show the same smooth pattern."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    value = 0.2 + 0.3 * rows / height + 0.4 * columns / width
    image = np.repeat((value * 255)[..., None], 3, axis=2).astype(np.uint8)
    mask = np.where(value > 0.55, 255, 0).astype(np.uint8)
    return Sample("a", "s", "s", image, value.astype(np.float32), mask)


@pytest.mark.parametrize("seed", range(12))
def test_picture_and_truth_stay_aligned(seed):
    rng = np.random.default_rng(seed)
    item = warp(coded(), random_map(rng, (60, 80), (64, 96), Augmentation()), (64, 96))
    inside = item.inverse_depth > 0
    assert inside.mean() > 0.5
    seen = item.image[..., 0] / 255.0
    assert np.abs(seen - item.inverse_depth)[inside].max() < 0.03
    labelled = item.person >= 0
    assert ((item.inverse_depth > 0.57) <= (item.person > 0.5))[inside & labelled].all()
    assert ((item.inverse_depth < 0.53) & inside <= (item.person < 0.5))[inside & labelled].all()


def test_beyond_the_picture_there_is_no_truth():
    strength = Augmentation(min_crop=1.5, max_crop=1.5, stretch=1.0, rotation_deg=0.0)
    item = warp(coded(), random_map(np.random.default_rng(0), (60, 80), (64, 96), strength), (64, 96))
    assert item.inverse_depth[0, 0] == 0
    assert item.person[0, 0] == NO_LABEL
    assert item.image[0, 0, 0] > 0


def test_some_views_are_mirrored_and_some_are_not():
    mirrored = {
        bool(random_map(np.random.default_rng(s), (60, 80), (64, 96), Augmentation())[0, 0] < 0) for s in range(20)
    }
    assert mirrored == {True, False}


@pytest.mark.parametrize(
    ("source", "target"),
    [((60, 80), (64, 96)), ((90, 61), (64, 96)), ((120, 160), (64, 64)), ((50, 200), (64, 96)), ((64, 96), (64, 96))],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_letterboxed_view_is_what_the_service_makes(source, target, seed):
    sample = coded(*source)
    mapping = letterbox_map(np.random.default_rng(seed), source, target)
    item = warp(sample, mapping, target)
    mirrored = mapping[0, 0] < 0
    box = Letterbox.of(*source, target)
    shown = np.ascontiguousarray(sample.image[:, ::-1]) if mirrored else sample.image
    # the service averages areas where this interpolates, which is the same on a smooth picture up to rounding
    assert np.abs(item.image.astype(int) - box.fit(shown)).max() <= 2

    depth = sample.inverse_depth[:, ::-1] if mirrored else sample.inverse_depth
    content = box.crop(item.inverse_depth)
    assert (content > 0).all()
    assert (item.inverse_depth > 0).sum() == content.size
    assert np.abs(content - cv2.resize(np.ascontiguousarray(depth), content.shape[::-1])).max() < 0.02
    labelled = box.crop(item.person)[2:-2, 2:-2] >= 0
    assert labelled.all()
    padding = np.ones(target, bool)
    box.crop(padding)[:] = False
    assert (cv2.erode(padding.astype(np.uint8), np.ones((3, 3)), borderValue=1) * item.person <= 0).all()


def test_letterboxed_views_are_mirrored_by_chance():
    mirrored = {bool(letterbox_map(np.random.default_rng(s), (60, 80), (64, 96))[0, 0] < 0) for s in range(20)}
    assert mirrored == {True, False}


def test_the_strength_says_how_many_views_are_letterboxed():
    sample = coded(50, 200)
    # of a 4:1 picture in 1:1, only a letterboxed view has rows without truth
    shares = [
        np.mean(
            [not view(np.random.default_rng(s), sample, (64, 64), strength).inverse_depth[0].any() for s in range(40)]
        )
        for strength in (Augmentation(1, 1, 1, 0, share) for share in (0.0, 0.5, 1.0))
    ]
    assert shares[0] == 0
    assert 0.25 < shares[1] < 0.75
    assert shares[2] == 1


def test_soft_labels_stay_shares_of_a_person():
    sample = coded(64, 96)
    sample.person[:] = np.linspace(0, 255, 96).round()
    sample.person[sample.person == 127] = 128
    item = warp(sample, whole_map((64, 96), (64, 96)), (64, 96))
    assert np.allclose(item.person, sample.person / 255, atol=1e-4)
    half = warp(sample, whole_map((64, 96), (32, 48)), (32, 48))
    assert half.person.min() >= 0
    assert (np.diff(half.person, axis=1) > 0).all()


def test_whole_map_is_a_plain_resize():
    sample = coded(64, 96)
    item = warp(sample, whole_map((64, 96), (32, 64)), (32, 64))
    wanted = cv2.resize(sample.image, (64, 32), interpolation=cv2.INTER_LINEAR)
    assert np.abs(item.image.astype(int) - wanted).max() <= 1


def test_ignored_pixels_get_no_label_and_borders_are_soft():
    sample = coded()
    sample.person[:, :40] = 127
    item = warp(sample, whole_map((60, 80), (32, 32)), (32, 32))
    assert (item.person[:, :15] == NO_LABEL).all()
    assert (item.person[:, 18:] >= 0).all()


def test_depth_is_never_mixed_with_no_data():
    sample = coded()
    sample.inverse_depth[::2] = 0
    sample.inverse_depth[1::2] = 0.5
    item = warp(sample, random_map(np.random.default_rng(1), (60, 80), (64, 96), Augmentation()), (64, 96))
    assert set(np.unique(item.inverse_depth)) == {0, 0.5}


def test_a_sample_without_truth_has_no_targets():
    sample = Sample("a", "s", "s", coded().image)
    item = view(np.random.default_rng(0), sample, (64, 64), Augmentation())
    assert not item.inverse_depth.any()
    assert (item.person == NO_LABEL).all()


def test_jitter_keeps_shape_and_type_and_is_repeatable():
    image = coded().image
    for seed in range(30):
        first, second = (jitter(np.random.default_rng(seed), image) for _ in range(2))
        assert first.shape == image.shape
        assert first.dtype == np.uint8
        assert (first == second).all()


def test_reading_the_data_folder_counts_the_broken_sample(data_folder, tmp_path):
    labels = tmp_path / "labels"
    (labels / "photos" / "imagenet").mkdir(parents=True)
    cv2.imwrite(str(labels / "photos" / "imagenet" / "cat.png"), np.full((96, 128), 255, np.uint8))
    bank = fill(readers(data_folder, labels), progress=False)
    found = [s for scenes in bank.train.values() for samples in scenes.values() for s in samples] + bank.held_out
    assert sorted(s.name for s in found) == [
        "photos/imagenet/cat",  # not bsds: unseen photos are never read
        "rgbd/synth_room/0000",
        "rgbd/wildrgbd_page/w00_0001",
        "rgbd/wildrgbd_page/w01_0001",
        "truth_person/humanseg/1",  # not ccp: truth is for judging
    ]
    assert len(bank.broken) == 1
    assert "w00_0002.jpg: not a readable picture" in bank.broken[0]


def test_only_the_sources_that_are_wanted_are_read(data_folder):
    bank = fill(readers(data_folder, None, only={"synth_room"}), progress=False)
    assert list(bank.train) == ["synth_room"]
    assert not bank.broken
    assert [source for source, _ in readers(data_folder, None, only={"wildrgbd_page"})] == ["wildrgbd_page"] * 3


def test_photos_without_labels_are_not_read(data_folder):
    bank = fill(readers(data_folder, None), progress=False)
    assert "photos" not in bank.train


def test_nothing_readable_is_an_error(tmp_path):
    def broken():
        raise BrokenSampleError("a.jpg: torn")

    with pytest.raises(TrainingError, match=r"no readable training sample; 1 broken, first: \['a.jpg: torn'\]"):
        fill([("rooms", broken)], progress=False)
    with pytest.raises(TrainingError, match="data folder not found"):
        list(readers(tmp_path / "none", None))


def test_photo_sets_for_training_and_for_looking_are_disjoint():
    assert not set(person.TRAIN_PHOTO_SETS) & set(person.UNSEEN_PHOTO_SETS)
    assert not set(person.PERSON_TRAIN_SETS) & set(person.PERSON_TRUTH_SETS)


def test_frames_of_one_scene_share_its_name_and_its_side_of_the_split():
    assert rgbd.scene_of("wildrgbd_page", "w00_0035") == rgbd.scene_of("wildrgbd_page", "w00_0600")
    assert rgbd.scene_of("da3_page", "dtu__scan110_0001") != rgbd.scene_of("da3_page", "dtu__scan114_0001")
    assert rgbd.scene_of("synth_room", "0004") == "synth_room"
    assert any(is_held_out(f"s{i}") for i in range(50))
    assert not all(is_held_out(f"s{i}") for i in range(50))


def test_metric_depth_becomes_inverse_depth(tmp_path):
    path = tmp_path / "a.depth.png"
    cv2.imwrite(str(path), np.array([[0, 500, 2000]], np.uint16))
    assert rgbd.read_inverse_depth(path)[0] == pytest.approx([0, 2, 0.5])


def test_pairs_say_whether_they_are_in_metres(data_folder):
    rgbd_folder = data_folder / "rgbd"
    assert rgbd.read_sample(data_folder, rgbd_folder / "synth_room" / "0000.jpg").metric
    assert not rgbd.read_sample(data_folder, rgbd_folder / "wildrgbd_page" / "w00_0001.jpg").metric


def test_depth_of_unknown_offset_is_never_inverted(tmp_path):
    path = tmp_path / "a.dep8.png"
    cv2.imwrite(str(path), np.array([[1, 255]], np.uint8))
    with pytest.raises(BrokenSampleError, match=r"neither .inv8.png nor"):
        rgbd.read_inverse_depth(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff torn"])
def test_unreadable_files(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_rgb, read_gray):
        with pytest.raises(BrokenSampleError, match=r"a\.jpg"):
            read(path)
    with pytest.raises(BrokenSampleError, match="No such file"):
        read_rgb(tmp_path / "none.jpg")


def test_labels_of_another_size_are_broken(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((3, 3), np.uint8))
    with pytest.raises(BrokenSampleError, match=r"\(3, 3\), its photo \(60, 80\)"):
        person.attach_label(Sample("x", "s", "s", coded().image), tmp_path)


def test_large_pictures_are_reduced_with_their_truth():
    small = reduce(coded(300, 900), long_side=90)
    assert small.image.shape == (30, 90, 3)
    assert small.inverse_depth.shape == small.person.shape == (30, 90)


@pytest.fixture
def scenes(tmp_path):
    """Three rendered scenes as the generator writes them: made of CC0 parts, of photos, and one without its depth."""
    root = tmp_path / "scenes"
    for seed, terms in enumerate(("cc0", "research", "cc0")):
        path = root / "00000" / f"s{seed:08d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample = coded(48, 64)
        cv2.imwrite(str(path.with_suffix(".jpg")), sample.image)
        stored = (sample.inverse_depth * 1000).astype(np.uint16)
        stored[:8] = 0
        if seed < 2:
            cv2.imwrite(str(path.with_suffix(".inv.png")), stored)
        if seed == 0:
            cv2.imwrite(str(path.with_suffix(".person.png")), np.tile(np.arange(100, 164, dtype=np.uint8), (48, 1)))
        path.write_text(json.dumps({"inverse_depth_scale_per_m": 0.002, "terms": terms}))
    return root


def test_rendered_scenes_are_read_with_soft_labels_and_depth_everywhere(scenes):
    soft, nobody = (read_scene(path) for path in list(read_scenes(scenes))[:2])
    assert (soft.source, nobody.source) == ("synthetic_cc0", "synthetic_photo")
    assert soft.inverse_depth[:8] == pytest.approx(1 / 500)  # the sky
    assert soft.inverse_depth[8:].min() > 0.4
    # its zero is infinity, which the log term needs
    assert soft.shift_known
    # one level of the 255 shares is taken by "ignore", but a rendered pixel always has a label
    assert soft.person[0].tolist() == [128 if value == 127 else value for value in range(100, 164)]
    assert not nobody.person.any()


def test_a_bank_of_rendered_scenes_alone_needs_no_data_folder(scenes):
    bank = fill(readers(None, None, scenes), progress=False)
    assert len(bank.broken) == 1
    assert "s00000002" in bank.broken[0]
    held = [sample.source for sample in bank.held_out]
    assert sorted([*bank.counts(), *held]) == ["synthetic_cc0", "synthetic_photo"]
    with pytest.raises(TrainingError, match="--data, --scenes or both"):
        list(readers(None, None, None))
    with pytest.raises(TrainingError, match="rendered scenes not found"):
        list(readers(None, None, scenes / "none"))


def test_batches_of_rendered_scenes_have_labels_at_every_place_of_the_picture(scenes):
    samples = [read_scene(path) for path in list(read_scenes(scenes))[:2]]
    bank = Bank(train={s.source: {s.scene: [s]} for s in samples})
    batch = Sampler(bank, {"synthetic_cc0": 1.0}, 0, Augmentation(0.5, 0.9, 1, 0)).batch(0, 4, ((32, 32),))
    assert batch.shift_known.all()
    assert (batch.person >= 100 / 255 - 1e-3).all()
    assert batch.person.unique().numel() > 50
    assert (batch.inverse_depth > 0).all()


def test_batches_depend_on_seed_and_step_only(bank):
    first, second = (Sampler(bank, {"rooms": 1}, 3, Augmentation()) for _ in range(2))
    second.batch(0, 2, ((64, 64),))
    a, b, other = first.batch(5, 2, ((64, 64),)), second.batch(5, 2, ((64, 64),)), first.batch(6, 2, ((64, 64),))
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.person, b.person)
    assert not torch.equal(a.image, other.image)
    assert a.image.shape == (2, 64, 64, 3)


def test_every_source_of_the_recipe_must_have_samples(bank):
    with pytest.raises(TrainingError, match="sources without samples: streets; there are rooms"):
        Sampler(bank, {"streets": 1, "rooms": 1}, 0, Augmentation())


def test_scenes_have_equal_chances_whatever_their_frames(sample_of):
    many, one = [sample_of(0)] * 99, [sample_of(1)]
    sampler = Sampler(Bank(train={"rooms": {"a": many, "b": one}}), {"rooms": 1}, 0, Augmentation(1, 1, 1, 0))
    reds = [int(sampler.batch(step, 1, ((96, 128),)).person.argmax()) for step in range(40)]
    # two scenes, each plain or mirrored: the lone frame must turn up about half the time
    assert len(set(reds)) == 4


def test_depth_truth_reads_depth_and_disparity(tmp_path):
    folder = tmp_path / "truth_depth"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((1, 2, 3), np.uint8))
    cv2.imwrite(str(folder / "a_gt.png"), np.array([[0, 4000]], np.uint16))
    entry = '{"rgb": "truth_depth/a.png", "gt": "truth_depth/a_gt.png", "unit": 0.001, "set": "s", "kind": "%s"}'
    unscaled = entry % "depth" + ', "relative": true}'
    (folder / "index.json").write_text(f"[{entry % 'depth'}, {entry % 'disparity'}, {unscaled.replace('}, ', ', ')}]")
    depth, disparity, relative = depth_truth(tmp_path)
    assert [depth.metric, disparity.metric, relative.metric] == [True, False, False]
    assert depth.inverse_depth[0] == pytest.approx([0, 0.25])
    assert disparity.inverse_depth[0] == pytest.approx([0, 4.0])


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_square_views_stay_inside_the_picture(size):
    strength = Augmentation(0.667, 0.997, 1, 10, geometry="square", crop_share=0.5, rotation_share=0.5)
    corners = np.array([[-0.5, -0.5], [size[1] - 0.5, -0.5], [-0.5, size[0] - 0.5], [size[1] - 0.5, size[0] - 0.5]])
    whole = 0
    for seed in range(60):
        mapping = square_map(np.random.default_rng(seed), (60, 80), size, strength)
        found = corners @ mapping[:, :2].T + mapping[:, 2]
        assert (found >= -0.5 - 1e-9).all()
        assert (found <= np.array([79.5, 59.5]) + 1e-9).all()
        whole += np.ptp(found[:, 0]) == pytest.approx(80)
    assert 15 < whole < 45  # half are not cropped; turned ones touch the borders


def test_square_views_without_chance_are_the_whole_picture_and_its_mirror_image():
    still = Augmentation(1, 1, 1, 0, geometry="square", crop_share=0.0, rotation_share=0.0)
    maps = [square_map(np.random.default_rng(seed), (60, 80), (32, 32), still) for seed in range(8)]
    plain = whole_map((60, 80), (32, 32))
    mirrored = plain * np.array([[-1, 1, 1], [1, 1, 1]]) + np.array([[0, 0, 79 - 2 * plain[0, 2]], [0, 0, 0]])
    assert all(np.allclose(m, plain) or np.allclose(m, mirrored) for m in maps)
    assert len({m[0, 0] > 0 for m in maps}) == 2


def test_colours_stay_where_the_recipe_says_so(sample_of):
    bank = Bank(train={"rooms": {"a": [sample_of(1)]}})
    still = Augmentation(1, 1, 1, 0, geometry="square", crop_share=0.0, rotation_share=0.0, colour_share=0.0)
    image = Sampler(bank, {"rooms": 1}, 0, still).batch(0, 1, ((96, 128),)).image[0].numpy()
    original = sample_of(1).image
    assert np.array_equal(image, original) or np.array_equal(image, original[:, ::-1])


def test_scenes_are_dealt_by_percent_and_never_cut():
    parts = [part_of(f"scene {i}", (50, 20, 30)) for i in range(2000)]
    for part, share in (("train", 0.5), ("held_out", 0.2), ("test", 0.3)):
        assert parts.count(part) / 2000 == pytest.approx(share, abs=0.04)
    assert {part_of(f"scene {i}") for i in range(50)} == {"train", "held_out"}
    assert all((part_of(f"scene {i}") == "held_out") == is_held_out(f"scene {i}") for i in range(50))


def test_scenes_of_the_test_part_are_not_read_into_the_bank(sample_of):
    bank = fill([("rooms", partial(sample_of, seed)) for seed in range(30)], False, (50, 20, 30))
    wanted = [part_of(f"rooms/{seed}", (50, 20, 30)) for seed in range(30)]
    assert (bank.counts()["rooms"], len(bank.held_out)) == (wanted.count("train"), wanted.count("held_out"))


def test_a_sample_of_which_no_view_can_be_made_is_noted_and_another_drawn(sample_of):
    bad = replace(sample_of(1), image=np.zeros((0, 0, 3), np.uint8))
    bank = Bank(train={"rooms": {"a": [bad], "b": [sample_of(2)]}})
    sampler = Sampler(bank, {"rooms": 1}, 0, Augmentation())
    assert sampler.batch(0, 8, ((32, 32),)).image.shape == (8, 32, 32, 3)
    assert set(sampler.failed) == {"rooms/1"}
    with pytest.raises(TrainingError, match="10 samples in a row cannot be used, last: rooms/1: "):
        Sampler(Bank(train={"rooms": {"a": [bad]}}), {"rooms": 1}, 0, Augmentation()).batch(0, 1, ((32, 32),))
