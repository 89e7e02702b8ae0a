"""Textures, cut-outs and the library."""

import cv2
import numpy as np
import pytest

from training.data.synthetic.assets import GROUPS, load_library
from training.data.synthetic.cutouts import cut_out, read_cutouts
from training.data.synthetic.generator import render_scene
from training.data.synthetic.people import Cast
from training.data.synthetic.procedural import MAKERS
from training.data.synthetic.scene import KINDS
from training.data.synthetic.textures import build_atlas, noise
from training.errors import TrainingError


def person_photo(height=300, width=200):
    """A bright figure on a dark ground, and its mask."""
    image, mask = np.full((height, width, 3), 30, np.uint8), np.zeros((height, width), np.uint8)
    mask[20:280, 70:130] = 255
    image[mask > 0] = (220, 180, 160)
    return image, mask


def write_people(folder, name="humanseg"):
    (folder / name).mkdir(parents=True)
    image, mask = person_photo()
    cv2.imwrite(str(folder / name / "1.jpg"), image[..., ::-1])
    cv2.imwrite(str(folder / name / "1_mask.png"), mask)
    return folder / name


def test_far_textures_show_their_mean_colour():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    atlas = build_atlas([texture, np.full((1, 8, 8, 3), 90, np.uint8)])
    layers, uv = np.zeros(5, np.int32), rng.random((5, 2)).astype(np.float32)
    far = atlas.sample(layers, uv, np.full(5, 1.0, np.float32))
    assert np.allclose(far, atlas.means[0], atol=0.01)
    assert np.allclose(far[0], ((texture / 255.0) ** 2.2).mean(axis=(0, 1, 2)), atol=0.02)
    near = atlas.sample(layers[:1], np.array([[3.5 / 16, 7.5 / 16]], np.float32), np.zeros(1, np.float32))
    assert np.allclose(near[0], (texture[0, 7, 3] / 255.0) ** 2.2, atol=1e-3)
    plain = atlas.sample(layers + 1, uv, np.full(5, 0.3, np.float32))
    assert np.allclose(plain, (90 / 255) ** 2.2, atol=0.01)


def test_noise_repeats_without_a_seam():
    field = noise(np.random.default_rng(0), 64, octaves=3)
    inside = np.abs(np.diff(field, axis=1)).mean()
    assert np.abs(field[:, 0] - field[:, -1]).mean() < 2 * inside


def test_a_library_without_files_has_every_group(library):
    assert set(library.models) == set(MAKERS) == set(GROUPS)
    assert all(library.models.values())
    assert not library.origins


def test_a_person_is_cut_out_without_the_background():
    cutout, square = cut_out(*person_photo())
    assert cutout.whole
    assert cutout.aspect == pytest.approx(60 / 260)
    assert square.shape == (256, 256, 4)
    assert square[..., 3].min() == 255
    assert np.abs(square[..., :3].astype(int) - (220, 180, 160)).max() < 3


def test_people_cut_by_the_side_or_tiny_are_left():
    image, mask = person_photo()
    assert cut_out(image[:, 80:], mask[:, 80:]) is None
    assert cut_out(image, np.zeros_like(mask)) is None


def test_people_of_the_sets_for_judging_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="pennfudan"):
        read_cutouts((tmp_path / "pennfudan",))


def test_unseen_photos_are_refused(tmp_path):
    (tmp_path / "bsds").mkdir()
    with pytest.raises(TrainingError, match="bsds"):
        load_library(photos=(tmp_path / "bsds",), drawn=1)


def test_scenes_name_the_photo_sets_that_show(tmp_path):
    people = write_people(tmp_path)
    (tmp_path / "imagenet").mkdir()
    cv2.imwrite(str(tmp_path / "imagenet" / "a.jpg"), np.full((150, 150, 3), 99, np.uint8))
    library = load_library(photos=(tmp_path / "imagenet",), people=(people,), drawn=1)
    terms = {
        render_scene(seed, library, Cast([]), (32, 48), kind=kind).scene.terms
        for seed in range(3)
        for kind in ("close_person", "table_top")
    }
    assert terms <= {"cc0", "humanseg", "imagenet", "humanseg+imagenet"}
    assert any("humanseg" in entry for entry in terms)
    assert any("imagenet" in entry for entry in terms)


@pytest.mark.shared
def test_the_delivered_assets_load_and_render(shared):
    library = load_library(shared / "data" / "assets3d")
    assert len(library.characters) == 10
    assert sum(map(len, library.tiles.values())) > 1400
    assert all(library.models.values())
    cast = Cast(library.characters)
    for kind in KINDS:
        rendering = render_scene(5, library, cast, (48, 64), kind=kind)
        assert np.isfinite(rendering.view.radiance).all()
        assert rendering.scene.terms == "cc0"
