"""Which photos a job takes and where results go: folders are mirrored, nothing of the user's is hit."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import views
from service.batch import names
from service.batch.plan import Item, WrongUse, existing, plan
from service.routes import focus as focus_route
from service.schemas import FocusQuery

NUMBERS = itertools.count()


def to_png(_: Path) -> str:
    return ".png"


def planned(inputs: list[str], out: str, suffix_of: Callable[[Path], str] = to_png) -> dict[str, str]:
    items = plan(inputs, out, suffix_of, names.PHOTO_SUFFIXES)
    return {item.name: "-" if item.target is None else str(item.target) for item in items}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.jpg", "p/b.JPEG", "p/sub/c.webp", "p/.hidden.jpg", "p/.git/d.jpg", "p/notes.txt", "q/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_a_folder_is_mirrored(here: Path) -> None:
    assert planned(["p"], "out/") == {
        "p/a.jpg": "out/a.png",
        "p/b.JPEG": "out/b.png",
        "p/sub/c.webp": "out/sub/c.png",
    }


def test_two_folders_keep_their_names(here: Path) -> None:
    assert planned(["p/sub", "q"], "out") == {"p/sub/c.webp": "out/p/sub/c.png", "q/a.jpg": "out/q/a.png"}


def test_files_of_one_folder_lie_in_out_itself(here: Path) -> None:
    assert planned(["p/a.jpg", "p/b.JPEG"], "out") == {"p/a.jpg": "out/a.png", "p/b.JPEG": "out/b.png"}


def test_files_of_several_folders_keep_them_apart(here: Path) -> None:
    assert planned(["p/a.jpg", "q/a.jpg"], "out") == {"p/a.jpg": "out/p/a.png", "q/a.jpg": "out/q/a.png"}


def test_a_pattern_is_mirrored_from_its_plain_part(here: Path) -> None:
    assert planned(["p/**/*.webp"], "out/") == {"p/sub/c.webp": "out/sub/c.png"}
    assert planned(["*/a.jpg"], "out") == {"p/a.jpg": "out/p/a.png", "q/a.jpg": "out/q/a.png"}


def test_one_file_to_a_file_or_into_a_folder(here: Path) -> None:
    assert planned(["p/a.jpg"], "depth.png") == {"p/a.jpg": "depth.png"}
    assert planned(["p/a.jpg"], "new/") == {"p/a.jpg": "new/a.png"}
    assert planned(["p/a.jpg"], "q") == {"p/a.jpg": "q/a.png"}
    assert planned(["p/a.jpg"], "-") == {"p/a.jpg": "-"}
    assert planned(["-"], "-") == {"-": "-"}
    assert planned(["-"], "depth.png") == {"-": "depth.png"}


def test_a_photo_named_twice_is_done_once(here: Path) -> None:
    assert list(planned(["p", "p/a.jpg", "./p/a.jpg"], "out")) == ["p/a.jpg", "p/b.JPEG", "p/sub/c.webp"]


def test_a_missing_file_is_left_to_fail_by_name(here: Path) -> None:
    assert "p/gone.jpg" in planned(["p/gone.jpg", "p/a.jpg"], "out")


def test_a_file_whose_name_looks_like_a_pattern(here: Path) -> None:
    (here / "p/x[1].jpg").write_bytes(b"x")
    assert planned(["p/x[1].jpg"], "out/") == {"p/x[1].jpg": "out/x[1].png"}


def test_same_stem_keeps_its_suffix(here: Path) -> None:
    (here / "q/a.png").write_bytes(b"x")
    assert planned(["q"], "out/") == {"q/a.jpg": "out/a.jpg.png", "q/a.png": "out/a.png.png"}


def test_earlier_results_are_no_photos(here: Path) -> None:
    (here / "p/out").mkdir()
    (here / "p/out/a.png").write_bytes(b"x")
    assert "p/out/a.png" not in planned(["p"], "p/out")


@pytest.mark.parametrize(
    ("inputs", "out", "said"),
    [
        (["p", "-"], "out", "goes with no other"),
        (["p"], "-", "one photo"),
        (["-"], "q", "is a folder"),
        (["none*"], "out", "nothing matches none*"),
        (["empty"], "out", "no photos in empty"),
    ],
)
def test_wrong_use_is_said(here: Path, inputs: list[str], out: str, said: str) -> None:
    (here / "empty").mkdir()
    with pytest.raises(WrongUse) as error:
        planned(inputs, out)
    assert said in str(error.value)


@pytest.mark.parametrize("out", ["p", "p/", "./p/../p"])
def test_a_result_never_takes_the_place_of_a_photo(here: Path, out: str) -> None:
    with pytest.raises(WrongUse, match="replace a photo"):
        planned(["p"], out, lambda source: source.suffix)


def test_not_even_through_a_link(here: Path) -> None:
    (here / "link").symlink_to("p")
    with pytest.raises(WrongUse, match="replace a photo"):
        planned(["p"], "link", lambda source: source.suffix)


WORD = st.sampled_from(["a", "b", "A", "a.b", "é", "x y"])
FILES = st.sets(
    st.tuples(st.lists(WORD, max_size=2), WORD, st.sampled_from([".jpg", ".png", ".JPG", ".heic"])).map(
        lambda parts: "/".join([*(f"d{folder}" for folder in parts[0]), parts[1] + parts[2]])
    ),
    min_size=1,
    max_size=8,
)


@given(FILES, st.sampled_from(["png16", "npy", "same"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_photo_has_a_result_of_its_own_below_out(tmp_path: Path, files: set[str], format: str) -> None:
    root = tmp_path / str(next(NUMBERS))
    for name in files:
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    out = root / "out"
    items = plan(
        [str(root / "photos")], f"{out}/", lambda path: names.result_suffix(format, path), names.PHOTO_SUFFIXES
    )
    assert {str(item.source) for item in items} == {str(root / "photos" / name) for name in files}
    targets = [item.target for item in items]
    assert len(set(targets)) == len(files)
    for item in items:
        assert item.source is not None
        assert item.target is not None
        assert item.target.is_relative_to(out)
        assert item.target.parent.relative_to(out) == item.source.parent.relative_to(root / "photos")
        assert item.target.name.startswith(item.source.stem)


def test_existing_results_are_found_broken_links_too(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"")
    os.symlink("nowhere", tmp_path / "link")
    items = [Item(Path(name), tmp_path / name) for name in ("there", "link", "free")]
    assert [item.name for item in existing([*items, Item(None, None)])] == ["there", "link"]


@pytest.mark.parametrize(
    ("command", "parameters", "source", "suffix"),
    [
        ("depth", {}, "a.jpg", ".png"),
        ("depth", {"format": "tiff"}, "a.jpg", ".tiff"),
        ("depth", {"format": "glb"}, "a.jpg", ".glb"),
        ("segment", {"format": "cutout"}, "a.jpg", ".png"),
        ("focus", {}, "a.JPG", ".JPG"),
        ("focus", {}, "a.heic", ".jpg"),
        ("focus", {"format": "jpeg"}, "a.png", ".jpg"),
        ("focus", {"output": "people"}, "a.png", ".json"),
        ("focus", {"output": "coc", "format": "npy"}, "a.png", ".npy"),
        ("focus", {"rack_rx": "0.1", "rack_ry": "0.1"}, "a.png", ".webp"),
    ],
)
def test_suffixes(command: str, parameters: dict[str, str], source: str, suffix: str) -> None:
    assert names.result_suffix(names.result_format(command, parameters), Path(source)) == suffix


def test_outputs_of_focus_are_named_as_the_service_sends_them() -> None:
    outputs = FocusQuery.model_json_schema()["properties"]["output"]["enum"]
    for output in outputs:
        first = views.OFFERS[output][0].format
        named = names.result_format("focus", {"output": output})
        assert named == ("same" if output == "image" else first)
    assert set(focus_route._WITHOUT_FOCUS) == {"people", "labels", "depth"}  # see service.commands.photos


@pytest.mark.parametrize(
    ("out", "default", "expected"),
    [
        ("x.npy", "png16", "npy"),
        ("x.png", "png16", None),
        ("x.tif", "png16", "tiff"),
        ("x.jpg", "same", "jpeg"),
        ("x", "png16", None),
    ],
)
def test_the_name_of_a_result_can_say_its_format(out: str, default: str, expected: str | None) -> None:
    assert names.format_of(Path(out), ("png16", "npy", "tiff", "jpeg"), default) == expected


def test_a_name_that_is_no_format_is_refused() -> None:
    with pytest.raises(WrongUse, match="no result in docx"):
        names.format_of(Path("x.docx"), ("png16", "npy"), "png16")
