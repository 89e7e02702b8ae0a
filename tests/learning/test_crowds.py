import itertools
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.crowds_command import each_person
from training.data import crowd_files
from training.data.bank import reduce
from training.data.crowd_files import (
    crowd_readers,
    plain_crowd,
    plain_people,
    read_crowd,
    stored_arrays,
    votes_of,
    write_crowd,
)
from training.data.crowds import PHOTO_SIZE, Crowd, draw_crowd, networks_view
from training.data.sample import BrokenSampleError, Sample
from training.data.transforms import Augmentation, Item, jittered, random_map, view, warp, whole_map
from training.errors import TrainingError

GREY = np.full((60, 80, 3), 120, np.uint8)


@pytest.fixture(scope="module")
def crowds() -> list[Crowd]:
    return [draw_crowd(seed, [plain_people()], [lambda: GREY]) for seed in range(4)]


@pytest.fixture(scope="module")
def plain() -> Sample:
    return next(sample for sample in map(plain_crowd, range(1, 9)) if len(np.unique(sample.votes[..., 3])) > 3)


def test_a_seed_is_a_crowd(crowds):
    again = draw_crowd(1, [plain_people()], [lambda: GREY])
    for name in ("photo", "mattes", "inverse_depth", "people"):
        assert np.array_equal(getattr(again, name), getattr(crowds[1], name))
    assert not np.array_equal(crowds[0].photo, crowds[1].photo)
    views = [networks_view(again, np.random.default_rng(3)) for _ in range(2)]
    # what the service makes of them differs in the last bits with where in memory they lie
    assert np.abs(views[0].inverse_depth - views[1].inverse_depth).max() < 0.01
    assert np.abs(views[0].person - views[1].person).max() < 0.01


def test_people_agree_with_their_pixels(crowds):
    for crowd in crowds:
        count = len(crowd.people)
        assert crowd.photo.shape == (*PHOTO_SIZE, 3)
        assert crowd.mattes.shape == (count, *PHOTO_SIZE)
        assert crowd.mattes.sum(0).max() <= 1 + 1e-5
        for number, (chest_x, chest_y, tall) in enumerate(crowd.people, 1):
            rows, columns = np.nonzero(crowd.owner == number)
            if not rows.size:  # hidden, or outside
                continue
            assert rows.max() - rows.min() <= tall
            # chest and pixels lie within one figure, whose width here is at most half its height
            assert np.abs(columns - chest_x).max() <= 0.35 * tall
            assert (rows - chest_y).min() >= -0.25 * tall
            assert (rows - chest_y).max() <= 0.8 * tall
            seen = crowd.inverse_depth[rows, columns]
            assert seen.max() - seen.min() < 0.06


def test_front_people_hide_rear_ones(crowds):
    hidden = 0
    for crowd in crowds:
        nearness = [np.median(crowd.inverse_depth[matte > 0.9]) for matte in crowd.mattes if (matte > 0.9).sum() > 50]
        assert all(far <= near + 0.03 for far, near in itertools.pairwise(nearness))
        for index, matte in enumerate(crowd.mattes):
            x, y, _ = crowd.people[index]
            chest = round(float(y)), round(float(x))
            inside = 0 <= chest[0] < PHOTO_SIZE[0] and 0 <= chest[1] < PHOTO_SIZE[1]
            if inside and matte[chest] < 0.5:
                hidden += 1
                assert crowd.owner[chest] > index + 1  # whoever stands there is nearer, thus later
    assert hidden


def test_a_network_sees_less_than_there_is(crowds):
    for seed, crowd in enumerate(crowds):
        seen = networks_view(crowd, np.random.default_rng(seed))
        assert seen.person.shape == seen.inverse_depth.shape == PHOTO_SIZE
        assert 0 <= seen.inverse_depth.min() <= seen.inverse_depth.max() <= 1
        anyone = crowd.mattes.sum(0)
        assert 2e-4 < np.abs(seen.person - anyone).mean() < 0.1
        truth = crowd.inverse_depth.ravel()
        assert np.corrcoef(truth, seen.inverse_depth.ravel())[0, 1] > 0.9


def test_nothing_to_compose(crowds):
    with pytest.raises(ValueError, match="people and a background"):
        draw_crowd(0, [[]], [lambda: GREY])
    with pytest.raises(ValueError, match="people and a background"):
        draw_crowd(0, [plain_people()], [])


def test_round_trip(crowds, tmp_path):
    arrays = stored_arrays(crowds[2], networks_view(crowds[2], np.random.default_rng(0)))
    photo, person, inverse, owner, people = arrays
    assert photo.shape == (213, 320, 3)
    path = tmp_path / "drawn" / "c00000002.npz"
    path.parent.mkdir()
    write_crowd(path, *arrays)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    ((source, read),) = list(crowd_readers(0, tmp_path))
    sample = read()
    assert source == sample.source == "drawn"
    assert np.array_equal(sample.image, photo)
    assert np.array_equal(sample.person, person)
    assert np.abs(sample.inverse_depth - inverse).max() < 1e-3
    assert np.array_equal(sample.votes[..., 3], owner)
    y, x = np.mgrid[:213, :320]
    for number in np.unique(owner[owner > 0]):
        mine = owner == number
        assert np.allclose((x + sample.votes[..., 0])[mine], people[number - 1, 0], atol=1e-3)
        assert np.allclose((y + sample.votes[..., 1])[mine], people[number - 1, 1], atol=1e-3)
        assert np.allclose(sample.votes[..., 2][mine], people[number - 1, 2])
    assert not sample.votes[owner == 0].any()


def test_files_right_in_the_folder_are_crowds(crowds, tmp_path):
    arrays = stored_arrays(crowds[0], networks_view(crowds[0], np.random.default_rng(0)), 64)
    write_crowd(tmp_path / "c00000000.npz", *arrays)
    assert [source for source, _ in crowd_readers(0, tmp_path)] == ["crowds"]
    assert read_crowd(tmp_path / "c00000000.npz").name == "crowds/c00000000"
    with pytest.raises(TrainingError, match="crowds not found"):
        list(crowd_readers(0, tmp_path / "none"))


def test_damaged_files(tmp_path):
    maps = np.zeros((4, 4), np.uint8)
    with pytest.raises(TrainingError, match="owners up to 3"):
        write_crowd(tmp_path / "c.npz", GREY[:4, :4], maps, maps.astype(np.float32), maps + 3, np.zeros((2, 3)))
    with pytest.raises(TrainingError, match="cannot write"):
        write_crowd(tmp_path / "no" / "c.npz", GREY[:4, :4], maps, maps.astype(np.float32), maps, np.zeros((2, 3)))
    (tmp_path / "c1.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "c2.npz", photo=maps)
    with zipfile.ZipFile(tmp_path / "c3.npz", "w") as archive:
        archive.writestr("photo.npy", b"damaged")
    for name in ("c1.npz", "c2.npz", "c3.npz", "c4.npz"):
        with pytest.raises(BrokenSampleError, match="no crowd"):
            read_crowd(tmp_path / name)


def chests(votes: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray, float]]:
    """Of every person (mean chest, its spread, height)."""
    found = {}
    for number in np.unique(votes[..., 3][votes[..., 2] > 0]):
        rows, columns = np.nonzero(votes[..., 3] == number)
        arrows = np.stack([columns, rows], 1) + votes[rows, columns, :2]
        found[int(number)] = arrows.mean(0), np.ptp(arrows, axis=0), float(votes[rows, columns, 2].mean())
    return found


def test_votes_move_with_the_picture(plain):
    """Mirrored, turned, stretched, scaled: every arrow of a person ends at one place, the moved chest."""
    size = plain.image.shape[:2]
    before = chests(plain.votes)
    mirrored = 0
    for seed in range(12):
        mapping = random_map(
            np.random.default_rng(seed), size, (96, 160), Augmentation(0.67, 1.33, 1.2, 4.0, rotation_share=1.0)
        )
        mirrored += mapping[0, 0] < 0
        votes = warp(plain, mapping, (96, 160)).votes
        assert votes.dtype == np.float32
        for number, (chest, spread, tall) in chests(votes).items():
            assert spread.max() < 0.01
            there = mapping[:, :2] @ chest + mapping[:, 2]
            assert there == pytest.approx(before[number][0], abs=0.01)
            back = np.linalg.inv(mapping[:, :2])
            assert tall == pytest.approx(before[number][2] * np.hypot(*(back @ [0, 1])), rel=1e-4)
    assert 2 < mirrored < 10


def test_mirror_and_scale_by_hand(plain):
    height, width = plain.image.shape[:2]
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0]])
    votes = warp(plain, mirror, (height, width)).votes
    assert votes == pytest.approx(plain.votes[:, ::-1] * [-1, 1, 1, 1], abs=1e-3)
    small = warp(plain, whole_map((height, width), (height // 2, width // 2)), (height // 2, width // 2)).votes
    assert small[..., 2].max() == pytest.approx(plain.votes[..., 2].max() * (height // 2) / height, rel=1e-5)


def test_large_crowds_are_reduced(plain):
    reduced = reduce(plain, 80)
    assert reduced.votes.shape == (*reduced.image.shape[:2], 4)
    before = chests(plain.votes)
    for number, (chest, spread, tall) in chests(reduced.votes).items():
        assert spread.max() < 0.01
        assert chest == pytest.approx(before[number][0] / 2, abs=1)
        assert tall == pytest.approx(before[number][2] / 2, rel=0.02)


def test_given_maps_stay_soft_and_are_never_unlabelled(plain):
    item = view(np.random.default_rng(4), plain, (64, 96), Augmentation(1.3, 1.33, 1.0, 0.0))
    assert item.person.min() == 0  # 127 is a share here, and beyond the picture is nobody
    steps = [jittered(np.random.default_rng(7), item) for _ in range(2)]
    assert np.array_equal(steps[0].inverse_depth, steps[1].inverse_depth)
    assert np.array_equal(steps[0].image, steps[1].image)
    assert not np.array_equal(steps[0].inverse_depth, item.inverse_depth)
    assert np.corrcoef(steps[0].inverse_depth.ravel(), item.inverse_depth.ravel())[0, 1] > 0.9


def test_other_items_are_jittered_as_before(plain):
    item = Item(plain.image, plain.inverse_depth, plain.person.astype(np.float32))
    assert jittered(np.random.default_rng(7), item).inverse_depth is item.inverse_depth


def masked_photo(folder: Path, name: str = "a") -> None:
    """Two figures apart, and one cut by the photo's side."""
    image, mask = np.full((300, 400, 3), 90, np.uint8), np.zeros((300, 400), np.uint8)
    for x in (80, 240, 390):
        cv2.ellipse(mask, (x, 150), (40, 120), 0, 0, 360, (255,), -1)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.jpg"), image)
    cv2.imwrite(str(folder / f"{name}_mask.png"), mask)


def test_everybody_who_is_whole_is_cut_out(tmp_path):
    masked_photo(tmp_path)
    image = cv2.imread(str(tmp_path / "a.jpg"))
    mask = cv2.imread(str(tmp_path / "a_mask.png"), cv2.IMREAD_GRAYSCALE)
    found = list(each_person(image, mask, 120))
    assert [cut.image.shape[0] for cut in found] == [243, 243]
    assert list(each_person(image, mask, 250)) == []
    assert list(each_person(image, mask[1:], 120)) == []


def crowds_command(tmp_path: Path, *more: object, people: str = "humanseg", backgrounds: str = "photos") -> int:
    words = ["crowds", "--count", 2, "--out", tmp_path / "out" / "crowds", "--backgrounds", tmp_path / backgrounds]
    return main([str(word) for word in (*words, "--people", tmp_path / people, *more)])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    masked_photo(tmp_path / "humanseg")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "b.jpg"), GREY)
    return tmp_path


def test_command(folders, capsys):
    assert crowds_command(folders) == 0
    assert "2 crowds composed, 0 were there" in capsys.readouterr().out
    written = sorted((folders / "out").rglob("*"))[1:]
    assert [path.name for path in written] == ["c00000000.npz", "c00000001.npz"]
    before = read_crowd(written[1])
    written[1].unlink()
    assert crowds_command(folders, "--jobs", 2) == 0
    assert "1 crowds composed, 1 were there" in capsys.readouterr().out
    again = read_crowd(written[1])
    assert np.array_equal(again.image, before.image)
    assert np.array_equal(again.votes, before.votes)
    assert np.abs(again.person.astype(int) - before.person).max() <= 2
    assert again.votes.any()


def test_a_folder_without_people_is_one_line(folders, capsys):
    (folders / "p3m").mkdir()
    (folders / "pennfudan").mkdir()
    (folders / "bsd100").mkdir()
    (folders / "empty").mkdir()
    for changes, message in (
        ({"people": "p3m"}, "nobody to cut out in"),
        ({"people": "pennfudan"}, "people of pennfudan are not for training"),
        ({"backgrounds": "bsd100"}, "photos of bsd100 are kept for judging"),
        ({"backgrounds": "empty"}, "no photo"),
        ({"backgrounds": "none"}, "backgrounds not found"),
    ):
        assert crowds_command(folders, **changes) == 1
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert told.startswith(f"error: {message}")
    assert crowds_command(folders, "--seed", -1) == 1


def test_the_drawn_ones_name_their_source():
    listed = list(crowd_readers(3, None))
    assert [source for source, _ in listed] == [crowd_files.PLAIN_SOURCE] * 3
    assert not votes_of(np.zeros((2, 2), np.uint8), np.zeros((0, 3), np.float32)).any()
