"""Who and what is in focus: clicks, people by number, modes, and what the headers say of them."""

import io

import cv2
import numpy as np
import pytest
from crowds import FAR, HEIGHT, NEAR, ON_FAR, ON_NEAR, ON_WALL, PHOTO, WIDTH, CrowdClient, crowd, inner, npy, pixels_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

SENT = crowd().astype(int)


@pytest.fixture
def client_of_triton() -> CrowdClient:
    return CrowdClient()


def unchanged(pixels: np.ndarray, place: tuple[slice, slice]) -> bool:
    return bool(np.abs(pixels[inner(place)] - SENT[inner(place)]).mean() < 1)


def test_people_are_listed_nearest_first(gateway: TestClient) -> None:
    answer = gateway.post("/focus?output=people", content=PHOTO)
    assert answer.headers["content-type"] == "application/json"
    report = answer.json()
    assert (report["width"], report["height"]) == (WIDTH, HEIGHT)
    assert (report["mode"], report["focus_depth"]) == (None, None)
    near, far = report["people"]
    assert [near["id"], far["id"]] == [0, 1]
    assert near["box"] == pytest.approx([20, 60, 64, 120], abs=2)
    assert far["box"] == pytest.approx([116, 16, 152, 70], abs=2)
    assert near["depth"] == pytest.approx(120 / 128, abs=0.05)
    assert far["depth"] == pytest.approx(70 / 128, abs=0.05)
    assert near["area"] == pytest.approx(60 * 44 / (WIDTH * HEIGHT), rel=0.1)
    assert near["sharp"] is far["sharp"] is None
    assert report["scene"] == answer.headers["x-scene"]
    assert "x-focus-depth" not in answer.headers


@pytest.mark.parametrize(
    ("query", "person", "sharp"),
    [
        (ON_NEAR, "0", [True, False]),
        (ON_FAR, "1", [False, True]),
        ({"person": "1"}, "1", [False, True]),
        ({"person": "1,0"}, "1,0", [True, True]),
        ({"person": ["1", "0"]}, "1,0", [True, True]),
        ({"person": "all"}, "0,1", [True, True]),
        (ON_NEAR | {"person": "1"}, "1", [True, True]),  # the click says how far: there the other stands
        (ON_WALL | {"person": "0,0"}, "0", [True, False]),
        (ON_WALL, "none", [False, False]),
        (ON_NEAR | {"mode": "plane"}, "none", [True, False]),
        ({"person": "1", "mode": "plane"}, "none", [False, True]),
    ],
    ids=str,
)
def test_who_stays_sharp(gateway: TestClient, query: dict[str, object], person: str, sharp: list[bool]) -> None:
    answer = gateway.post("/focus", params=query | {"blur": 1}, content=PHOTO)
    pixels = pixels_of(answer)
    assert answer.headers["x-focus-person"] == person
    assert answer.headers["x-focus-mode"] == ("plane" if person == "none" else "subject")
    report = gateway.post("/focus", params=query | {"blur": 1, "output": "people"}, content=PHOTO).json()
    assert [unchanged(pixels, NEAR), unchanged(pixels, FAR)] == sharp
    assert [one["sharp"] for one in report["people"]] == sharp
    assert f"{report['focus_depth']:.4f}" == answer.headers["x-focus-depth"]


def sharpness(pixels: np.ndarray, place: tuple[slice, slice]) -> float:
    """Variance of the Laplacian within a place."""
    gray = cv2.cvtColor(pixels.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F)[inner(place)].var())


@pytest.mark.parametrize(("click", "kept", "lost"), [(ON_NEAR, NEAR, FAR), (ON_FAR, FAR, NEAR)], ids=["near", "far"])
def test_detail_is_kept_on_the_clicked_person_and_lost_on_the_other_and_the_wall(
    gateway: TestClient, click: dict[str, object], kept: tuple[slice, slice], lost: tuple[slice, slice]
) -> None:
    pixels = pixels_of(gateway.post("/focus", params=click | {"blur": 1, "mode": "subject"}, content=PHOTO))
    wall = slice(4, 40), slice(4, 60)
    assert sharpness(pixels, kept) == pytest.approx(sharpness(SENT, kept), rel=0.05)
    for place in (lost, wall):
        assert sharpness(pixels, place) < 0.3 * sharpness(SENT, place)


def test_the_focus_is_on_the_persons_own_depth(gateway: TestClient) -> None:
    """The median of the core, wherever on the person the click is; and that of the first of several."""
    near, far = gateway.post("/focus?output=people", content=PHOTO).json()["people"]
    clicks = [{"x": 30, "y": 66}, {"x": 55, "y": 115}, {"person": "0"}, {"person": "0,1"}, {"person": "all"}]
    for query in clicks:
        answer = gateway.post("/focus", params=query, content=PHOTO)
        assert answer.headers["x-focus-depth"] == f"{near['depth']:.4f}"
    answer = gateway.post("/focus?person=1,0", content=PHOTO)
    assert answer.headers["x-focus-depth"] == f"{far['depth']:.4f}"


def test_a_plane_takes_the_clicked_side_of_an_edge(gateway: TestClient) -> None:
    """One pixel on either side of a step of depth: never a value in between."""
    depth = np.full((HEIGHT, WIDTH), 0.2, np.float32)
    depth[:, 100:] = 0.9
    files = {"image": PHOTO, "depth": npy(depth), "mask": npy(np.zeros_like(depth))}
    for column, expected in ((97, 0.2), (99, 0.2), (100, 0.9), (103, 0.9)):
        answer = gateway.post(f"/focus?x={column}&y=64&mode=plane", files=files)
        assert float(answer.headers["x-focus-depth"]) == pytest.approx(expected, abs=1e-3)


def test_the_automatic_depth_range_follows_the_surface(gateway: TestClient) -> None:
    rows = np.repeat(np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None], WIDTH, axis=1)
    nobody = npy(np.zeros_like(rows))

    def used(depth: np.ndarray, **query: object) -> float:
        files = {"image": PHOTO, "depth": npy(depth), "mask": nobody}
        answer = gateway.post("/focus", params={"x": 90, "y": 64} | query, files=files)
        return float(answer.headers["x-depth-range"])

    flat = np.full_like(rows, 0.5)
    flat[0] = 1
    assert used(flat) == 0.01
    assert used(rows) > 0.01
    assert used(rows, depth_range=0.003) == 0.003
    assert float(gateway.post("/focus", params=ON_NEAR, content=PHOTO).headers["x-depth-range"]) == 0


def test_nobody_there(gateway: TestClient) -> None:
    answer = gateway.post("/focus", params=ON_WALL | {"mode": "subject"}, content=PHOTO)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "not_a_person", "mode")
    people = answer.json()["people"]
    assert [person["id"] for person in people] == [0, 1]
    assert set(people[0]) == {"id", "box", "depth"}
    empty = npy(np.zeros((HEIGHT, WIDTH), np.float32))
    for query in ("person=all", "person=all&x=5&y=5&mode=subject"):
        answer = gateway.post(f"/focus?{query}", files={"image": PHOTO, "mask": empty})
        assert (answer.status_code, answer.json()["code"], answer.json()["people"]) == (422, "not_a_person", [])
    answer = gateway.post("/focus?person=all&x=5&y=5", files={"image": PHOTO, "mask": empty})
    assert answer.headers["x-focus-mode"] == "plane", "auto: everybody of nobody is the plane"


@pytest.mark.parametrize(("query", "field"), [("person=0,7", "person"), ("person=0&rack_person=7", "rack_person")])
def test_an_unknown_person(gateway: TestClient, query: str, field: str) -> None:
    problem = gateway.post(f"/focus?{query}", content=PHOTO).json()
    assert (problem["status"], problem["code"], problem["field"]) == (422, "unknown_person", field)
    assert problem["value"] == 7
    assert [person["id"] for person in problem["people"]] == [0, 1]


def test_a_click_outside_names_the_size(gateway: TestClient) -> None:
    for query, field in (("x=192&y=0", "x"), ("x=1&y=1&rack_x=1&rack_y=128", "rack_y")):
        problem = gateway.post(f"/focus?{query}", content=PHOTO).json()
        assert (problem["status"], problem["code"], problem["field"]) == (422, "outside_image", field)
        assert problem["limit"] == [WIDTH - 1, HEIGHT - 1]
        assert "192 x 128" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("person=x", "person"),
        ("person=-1", "person"),
        ("person=1,", "person"),
        ("person=all&person=0", "person"),
        ("person=" + "1," * 300 + "1", "person"),
        ("person=0&x=1&y=1&mode=plane", "person"),
        ("x=1&y=1&max_coc=0.07", "max_coc"),
        ("x=1&y=1&depth_range=0.21", "depth_range"),
        ("x=1&y=1&front=1.1", "front"),
        ("x=1&y=1&back=-0.1", "back"),
        ("x=1&y=1&blades=3", "blades"),
        ("x=1&y=1&blades=10", "blades"),
        ("x=1&y=1&rotation=361", "rotation"),
        ("x=1&y=1&curvature=2", "curvature"),
        ("x=1&y=1&highlights=2", "highlights"),
        ("x=1&y=1&highlights=nan", "highlights"),
        ("x=1&y=1&highlights=bright", "highlights"),
        ("x=1&y=1&edge=soft", "edge"),
        ("x=1&y=1&output=layers", "output"),
        ("output=alpha", "x"),
        ("output=coc", "x"),
        ("output=all", "x"),
        ("rack_x=1&rack_y=1", "x"),
        ("x=1&y=1&rack_x=1", "rack_x"),
        ("x=1&y=1&rack_x=1&rack_y=1&rack_rx=0&rack_ry=0", "rack_x"),
        ("x=1&y=1&rack_frames=8", "rack_x"),
        ("x=1&y=1&rack_person=0&rack_frames=1", "rack_frames"),
        ("x=1&y=1&rack_person=0&rack_frames=49", "rack_frames"),
        ("x=1&y=1&rack_person=0&rack_fps=61", "rack_fps"),
        ("x=1&y=1&rack_person=0&output=coc", "output"),
        ("x=1&y=1&rack_person=0&rack_x=3&rack_y=3&mode=plane", "rack_person"),
    ],
)
def test_parameters_out_of_range(gateway: TestClient, query: str, field: str) -> None:
    answer = gateway.post(f"/focus?{query}", content=PHOTO)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_parameter"
    assert answer.json()["field"] == field


def optional(**choices: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=choices)


SHARE = st.floats(0, 1)
WHERE = st.one_of(
    st.builds(dict, x=st.floats(0, WIDTH - 1), y=st.floats(0, HEIGHT - 1)),
    st.builds(dict, rx=SHARE, ry=SHARE),
    st.builds(dict, person=st.sampled_from(["0", "1", "1,0", "all"])),
)
TARGET = st.one_of(
    st.just({}),
    st.builds(dict, rack_rx=SHARE, rack_ry=SHARE, rack_frames=st.integers(2, 4)),
    st.builds(dict, rack_person=st.integers(0, 1), rack_frames=st.integers(2, 4)),
)
LENS = optional(
    mode=st.sampled_from(["auto", "subject", "plane"]),
    blur=SHARE,
    max_coc=st.floats(0, 0.06),
    depth_range=st.floats(0, 0.2),
    front=SHARE,
    back=SHARE,
    blades=st.sampled_from([0, 5, 6, 7, 8, 9]),
    rotation=st.floats(-360, 360),
    curvature=SHARE,
    highlights=st.one_of(st.sampled_from(["auto", "off"]), SHARE),
)
OUTPUT = optional(output=st.sampled_from(["image", "alpha", "coc", "depth", "people", "all"]))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(WHERE, LENS, st.one_of(OUTPUT, TARGET))
def test_every_valid_combination_is_answered(
    where: dict[str, object], lens: dict[str, object], shown: dict[str, object]
) -> None:
    """All of one scene: with what it asks for, or a 422 because nobody is at the click."""
    answer = GATEWAY.post("/focus", params=where | lens | shown, content=PHOTO)
    if answer.status_code == 422:
        assert answer.json()["code"] == "not_a_person"
        assert lens["mode"] == "subject"
        return
    assert answer.status_code == 200
    assert 0 <= float(answer.headers["x-focus-depth"]) <= 1
    assert float(answer.headers["x-coc-max"]) <= 0.06 * WIDTH + 0.01
    assert (answer.headers["x-focus-mode"] == "plane") == (answer.headers["x-focus-person"] == "none")
    if lens.get("mode", "auto") != "auto":
        assert answer.headers["x-focus-mode"] == lens["mode"]


GATEWAY = TestClient(create_app(Settings(canary_period_s=60), CrowdClient()), raise_server_exceptions=False)


def test_the_map_of_people_says_whom_a_click_picks(gateway: TestClient) -> None:
    answer = gateway.post("/focus?output=labels", content=PHOTO)
    labels = pixels_of(answer)[..., 0].astype(np.uint8)
    assert labels.shape == (HEIGHT, WIDTH)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[inner(NEAR)] == 1).all()
    assert (labels[inner(FAR)] == 2).all()
    scene = {"scene": answer.headers["x-scene"]}
    rng = np.random.default_rng(3)
    rows, columns = np.nonzero(cv2.dilate(labels, np.ones((5, 5), np.uint8)) != cv2.erode(labels, np.ones((5, 5))))
    for place in rng.choice(len(rows), 12, replace=False):  # where it is easiest to be wrong
        click = {"x": float(columns[place]), "y": float(rows[place])}
        picked = gateway.post("/focus?output=people", params=click | scene).headers["x-focus-person"]
        expected = labels[rows[place], columns[place]]
        assert picked == ("none" if expected == 0 else str(expected - 1)), click


def test_a_quick_look_is_the_large_answer_made_smaller(gateway: TestClient) -> None:
    first = gateway.post("/focus", params=ON_NEAR | {"format": "png", "blur": 0.6}, content=PHOTO)
    scene = {"scene": first.headers["x-scene"], "format": "png"}
    look = gateway.post("/focus", params=ON_NEAR | scene | {"blur": 0.6, "max_side": 96})
    small = pixels_of(look)
    assert small.shape == (64, 96, 3)
    assert look.headers["x-focus-person"] == first.headers["x-focus-person"] == "0"
    assert look.headers["x-focus-depth"] == first.headers["x-focus-depth"]
    ratio = float(look.headers["x-coc-max"]) / float(first.headers["x-coc-max"])
    assert ratio == pytest.approx(0.5, abs=0.02)
    expected = cv2.resize(pixels_of(first).astype(np.float32), (96, 64), interpolation=cv2.INTER_AREA)
    unfocused = cv2.resize(SENT.astype(np.float32), (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small - expected).mean() < 0.5 * np.abs(unfocused - expected).mean()
    untouched = gateway.post("/focus", params=ON_NEAR | scene | {"blur": 0.6, "max_side": WIDTH})
    assert untouched.content == first.content
    for output, mode in (("labels", "L"), ("depth", "I;16"), ("coc", "I;16"), ("alpha", "L")):
        answer = gateway.post("/focus", params=ON_NEAR | scene | {"output": output, "max_side": 96, "format": "png"})
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.size, picture.mode) == ((96, 64), mode), output


@pytest.mark.parametrize("query", [{"output": "people"}, {"output": "all"}, {"rack_x": 134, "rack_y": 40}], ids=str)
def test_a_quick_look_is_of_single_pictures(gateway: TestClient, query: dict[str, object]) -> None:
    answer = gateway.post("/focus", params=ON_NEAR | query | {"max_side": 96}, content=PHOTO)
    assert (answer.status_code, answer.json()["field"]) == (422, "max_side")
