"""What is written, resumed and read back; the command line."""

import json

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.data.sample import BrokenSampleError
from training.data.synthetic.dataset import SKY_PER_M, SOURCE_CC0, SOURCE_PHOTO, read_scene, read_scenes
from training.data.synthetic.generator import render_scene
from training.data.synthetic.writer import is_written, scene_path, write_scene
from training.errors import TrainingError

SIZE = (48, 64)


def outdoors(library, cast):
    return render_scene(1, library, cast, SIZE, stereo=True, kind="street")


def test_a_scene_reads_back(tmp_path, library, cast):
    rendering = outdoors(library, cast)
    path = write_scene(tmp_path, rendering)
    assert list(read_scenes(tmp_path)) == [path]
    sample = read_scene(path)
    depth = rendering.view.inverse_depth
    assert (sample.source, sample.name, sample.scene) == (SOURCE_CC0, path.stem, path.stem)
    assert np.abs(sample.image.astype(int) - rendering.image).mean() < 12
    assert np.abs(sample.inverse_depth - np.maximum(depth, SKY_PER_M)).max() < depth.max() / 60000
    assert (sample.inverse_depth[depth == 0] == np.float32(SKY_PER_M)).all()
    assert np.array_equal(sample.person, rendering.view.person)


def test_the_json_says_how_to_read_the_rest(tmp_path, library, cast):
    rendering = outdoors(library, cast)
    path = write_scene(tmp_path, rendering)
    about = json.loads(path.read_text())
    assert about["seed"] == 1
    assert about["kind"] == "street"
    assert about["terms"] == "cc0"
    assert about["baseline_m"] == rendering.scene.shot.baseline_m
    stored = cv2.imread(str(path.with_suffix(".disp.png")), cv2.IMREAD_UNCHANGED)
    expected = rendering.view.inverse_depth * about["focal_px"] * about["baseline_m"]
    assert np.abs(stored * about["disparity_scale_px"] - expected).max() < 1e-2
    hidden = cv2.imread(str(path.with_suffix(".occ.png")), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(hidden > 0, rendering.occluded)
    assert path.with_suffix(".right.jpg").is_file()


def test_photo_terms_are_another_source(tmp_path, library, cast):
    path = write_scene(tmp_path, outdoors(library, cast))
    path.write_text(path.read_text().replace('"cc0"', '"humanseg"'))
    assert read_scene(path).source == SOURCE_PHOTO


def test_a_damaged_scene_is_a_broken_sample(tmp_path, library, cast):
    path = write_scene(tmp_path, outdoors(library, cast))
    path.with_suffix(".inv.png").write_bytes(b"")
    with pytest.raises(BrokenSampleError):
        read_scene(path)
    path.write_text("{}")
    with pytest.raises(BrokenSampleError):
        read_scene(path)


def test_no_scenes_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="synth"):
        list(read_scenes(tmp_path / "none"))


def synth(folder, *more):
    return main(["synth", "--out", str(folder), "--count", "3", "--size", "32x48", *more])


def test_the_command_renders_and_resumes(tmp_path, capsys):
    assert synth(tmp_path, "--seed", "70") == 0
    paths = list(read_scenes(tmp_path))
    assert [path.stem for path in paths] == ["s00000070", "s00000071", "s00000072"]
    first = {path: path.read_bytes() for path in sorted(tmp_path.rglob("s*"))}
    assert "CPU s/scene" in capsys.readouterr().out
    kept = paths[0].stat().st_mtime_ns
    for path in paths[1:]:
        path.unlink()  # as if stopped before they were whole
    assert synth(tmp_path, "--seed", "70") == 0
    assert "2 scenes" in capsys.readouterr().out
    assert paths[0].stat().st_mtime_ns == kept
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("s*"))} == first
    assert synth(tmp_path, "--seed", "70") == 0
    assert "nothing to render" in capsys.readouterr().out
    assert is_written(tmp_path, 70)
    assert not scene_path(tmp_path, 73).exists()


def test_a_contact_sheet_shows_the_scenes(tmp_path):
    assert synth(tmp_path, "--sheet", str(tmp_path / "sheet.png")) == 0
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (120, 4 * 320, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--size", "10x10"), "32 to 2048"),
        (("--size", "big"), "HEIGHTxWIDTH"),
        (("--count", "0"), "at least 1"),
        (("--assets", "nowhere"), "assets folder not found"),
        (("--photos", "nowhere"), "photo folder not found"),
        (("--people", "ccp"), "ccp"),
        (("--sheet", "sheet.txt"), ".jpg or .png"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, more, words):
    assert synth(tmp_path, *more) == 1
    text = capsys.readouterr().err
    assert [line for line in text.splitlines() if words in line and line.startswith("error: ")]
    assert "Traceback" not in text
