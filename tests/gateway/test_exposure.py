"""Each parameter of the lens changes what it should and nothing else; the views show what was used."""

import io
import zipfile

import numpy as np
import pytest
from crowds import (
    FAR,
    HEIGHT,
    NEAR,
    ON_FAR,
    ON_NEAR,
    ON_WALL,
    PHOTO,
    WIDTH,
    CrowdClient,
    crowd,
    gray_of,
    inner,
    npy,
    pixels_of,
    png,
)
from fakes import encoded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from service.exposure import quantise_coc

SENT = crowd().astype(int)
MIDDLE = {"x": 90, "y": 64, "mode": "plane"}


@pytest.fixture
def client_of_triton() -> CrowdClient:
    return CrowdClient()


def coc_of(gateway: TestClient, **query: object) -> np.ndarray:
    answer = gateway.post("/focus", params=MIDDLE | {"output": "coc", "format": "npy"} | query, content=PHOTO)
    assert answer.status_code == 200
    return np.load(io.BytesIO(answer.content))


def focused(gateway: TestClient, body: bytes = PHOTO, **query: object) -> np.ndarray:
    return pixels_of(gateway.post("/focus", params=MIDDLE | query, content=body))


def test_the_circle_of_confusion_is_signed_and_grows_with_distance(gateway: TestClient) -> None:
    coc = coc_of(gateway, depth_range=0, blur=1)
    assert coc.dtype == np.float32
    assert coc.shape == (HEIGHT, WIDTH)
    column = coc[:, 90]
    assert (np.diff(column) >= 0).all(), "lower rows are nearer: positive in front"
    assert column[0] < -4
    assert column[-1] > 4
    assert abs(column[64]) < 0.1
    strength_px = 0.06 * WIDTH
    assert column[0] == pytest.approx(-strength_px * 64 / 127, rel=0.05)


def test_strength(gateway: TestClient) -> None:
    def largest(**query: object) -> float:
        answer = gateway.post("/focus", params=MIDDLE | {"depth_range": 0} | query, content=PHOTO)
        return float(answer.headers["x-coc-max"])

    numbers = [largest(f_number=number) for number in (2, 2.8, 4, 8)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] / numbers[2] == pytest.approx(2, rel=0.02)
    assert largest() == numbers[1]
    assert largest(blur=1) == largest(f_number=1.4)
    assert largest(blur=0.5) == pytest.approx(largest(blur=1) / 2, rel=0.02)
    assert largest(blur=0) == 0
    for share in (0.02, 0.01):
        assert largest(blur=1, max_coc=share) == pytest.approx(share * WIDTH, rel=0.02)
    assert largest(f_number=8, max_coc=0.06) == numbers[3], "a limit that is not reached changes nothing"
    np.testing.assert_array_equal(focused(gateway, max_coc=0), SENT)


def test_front_and_back_are_apart(gateway: TestClient) -> None:
    whole = coc_of(gateway, depth_range=0)
    for name, side in (("front", whole > 0), ("back", whole < 0)):
        none, half = coc_of(gateway, depth_range=0, **{name: 0}), coc_of(gateway, depth_range=0, **{name: 0.5})
        assert (none[side] == 0).all()
        np.testing.assert_array_equal(none[~side], whole[~side])
        wide = side & (np.abs(whole) > 4)
        np.testing.assert_allclose(half[wide], whole[wide] / 2, rtol=1e-4)
    top, bottom = (slice(0, 30), slice(70, 110)), (slice(100, HEIGHT), slice(70, 110))  # beside the people
    behind = focused(gateway, front=0)
    np.testing.assert_array_equal(behind[bottom], SENT[bottom])
    assert np.abs(behind[top] - SENT[top]).mean() > 10
    before = focused(gateway, back=0)
    assert np.abs(before[bottom] - SENT[bottom]).mean() > 10


def test_depth_range_widens_what_is_sharp(gateway: TestClient) -> None:
    sharp = [int((coc_of(gateway, depth_range=half, blur=1) == 0).sum()) for half in (0, 0.05, 0.1, 0.2)]
    assert sharp == sorted(set(sharp))
    rows = slice(64 - 24, 64 + 24)  # 0.2 of 127 rows to either side, less a pixel
    np.testing.assert_array_equal(focused(gateway, depth_range=0.2)[rows, 70:110], SENT[rows, 70:110])


def test_the_aperture_shows_in_a_lamp(gateway: TestClient) -> None:
    lamp = encoded(Image.fromarray(crowd(lamp=True)))
    disc = focused(gateway, lamp, blur=1)
    seen = {
        name: focused(gateway, lamp, blur=1, **query)
        for name, query in {
            "five": {"blades": 5},
            "six": {"blades": 6},
            "turned": {"blades": 5, "rotation": 36},
            "curved": {"blades": 5, "curvature": 0.5},
            "dark": {"highlights": "off"},
            "dim": {"highlights": 0.3},
        }.items()
    }
    pictures = [disc, *seen.values()]
    for index, picture in enumerate(pictures):
        assert all((picture != other).any() for other in pictures[index + 1 :])
    np.testing.assert_array_equal(focused(gateway, lamp, blur=1, blades=5, curvature=1), disc)
    np.testing.assert_array_equal(focused(gateway, lamp, blur=1, rotation=20), disc)
    np.testing.assert_array_equal(focused(gateway, lamp, blur=1, blades=5, rotation=72), seen["five"])
    np.testing.assert_array_equal(focused(gateway, lamp, blur=1, highlights=1), disc)
    spot = (slice(0, 44), slice(60, 104))
    light = [int(picture[spot].sum()) for picture in (seen["dark"], seen["dim"], disc)]
    assert light == sorted(set(light))


def test_edges_of_people(gateway: TestClient) -> None:
    def alpha(edge: str) -> np.ndarray:
        answer = gateway.post("/focus", params=ON_NEAR | {"output": "alpha", "edge": edge}, content=PHOTO)
        return gray_of(answer.content)

    levels = {edge: alpha(edge) for edge in ("matte", "guided", "hard")}
    assert set(np.unique(levels["hard"])) == {0, 255}
    assert ((levels["guided"] > 0) & (levels["guided"] < 255)).any()
    for matte in levels.values():
        assert (matte[inner(NEAR)] > 200).all()
        assert (matte[FAR] == 0).all()
    default = gateway.post("/focus", params=ON_NEAR | {"output": "alpha"}, content=PHOTO)
    np.testing.assert_array_equal(gray_of(default.content), levels["matte"])


def test_alpha_is_of_those_kept(gateway: TestClient) -> None:
    def alpha(**query: object) -> np.ndarray:
        answer = gateway.post("/focus", params={"output": "alpha"} | query, content=PHOTO)
        assert answer.headers["content-type"] == "image/png"
        return gray_of(answer.content)

    near, far, both = alpha(person="0"), alpha(person="1"), alpha(person="all")
    assert near.dtype == np.uint8
    np.testing.assert_array_equal(both, np.maximum(near, far))
    assert not alpha(**ON_WALL).any()


@pytest.mark.parametrize("query", [ON_NEAR | {"blur": 1}, ON_WALL, ON_FAR | {"person": "all"}], ids=str)
def test_stored_circles_are_those_used(gateway: TestClient, query: dict[str, object]) -> None:
    stored = gateway.post("/focus", params=query | {"output": "coc"}, content=PHOTO)
    values = coc_of(gateway, **{"mode": "auto"} | query)
    scale, offset = float(stored.headers["x-coc-scale"]), float(stored.headers["x-coc-offset"])
    assert stored.headers["content-type"] == "image/png"
    assert stored.headers["x-coc-unit"] == "px"
    levels = gray_of(stored.content)
    assert levels.dtype == np.uint16
    np.testing.assert_allclose(levels * scale + offset, values, atol=scale / 2 + 1e-6)
    assert Image.open(io.BytesIO(stored.content)).text["CoC-Scale"] == stored.headers["x-coc-scale"]
    assert np.abs(values).max() == pytest.approx(float(stored.headers["x-coc-max"]), abs=0.006)


@given(st.floats(0, 4000), st.integers(0, 2**31))
def test_every_circle_can_be_stored(largest: float, seed: int) -> None:
    values = (np.random.default_rng(seed).uniform(-largest, largest, (4, 5))).astype(np.float32)
    stored, scale, offset = quantise_coc(values)
    np.testing.assert_allclose(stored * scale + offset, values, atol=scale / 2 + 1e-3)
    assert scale == 1 / 64 or largest > 500
    assert quantise_coc(np.zeros((2, 2), np.float32))[0].tolist() == [[32768] * 2] * 2


def test_depth_is_that_used(gateway: TestClient) -> None:
    for query in ("", "&x=90&y=64"):
        stored = gateway.post(f"/focus?output=depth{query}", content=PHOTO)
        values = np.load(io.BytesIO(gateway.post(f"/focus?output=depth&format=npy{query}", content=PHOTO).content))
        scale = float(stored.headers["x-depth-scale"])
        np.testing.assert_allclose(gray_of(stored.content) * scale, values, atol=scale)
        assert values.dtype == np.float32
        assert values[110, 90] > 0.8 > 0.2 > values[10, 90]
    clicked = gateway.post("/focus?output=depth&x=90&y=64", content=PHOTO)
    assert float(clicked.headers["x-focus-depth"]) == pytest.approx(values[64, 90], abs=0.03)


def test_everything_in_one_zip(gateway: TestClient) -> None:
    query = ON_NEAR | {"blur": 0.7}
    answer = gateway.post("/focus", params=query | {"output": "all"}, content=PHOTO)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {"image.png", "alpha.png", "coc.png", "depth.png", "people.json"}
    alone = {
        "image.png": gateway.post("/focus", params=query, content=PHOTO),
        "alpha.png": gateway.post("/focus", params=query | {"output": "alpha"}, content=PHOTO),
        "coc.png": gateway.post("/focus", params=query | {"output": "coc"}, content=PHOTO),
        "depth.png": gateway.post("/focus", params=query | {"output": "depth"}, content=PHOTO),
    }
    assert all(files[name] == other.content for name, other in alone.items())
    assert answer.headers["x-coc-scale"] == alone["coc.png"].headers["x-coc-scale"]


@pytest.mark.parametrize(
    ("query", "accept", "status", "media_type"),
    [
        ("output=people&format=json", "*/*", 200, "application/json"),
        ("output=people&format=same", "*/*", 200, "application/json"),
        ("output=people", "image/png", 406, None),
        ("output=coc&x=1&y=1&format=png", "*/*", 200, "image/png"),
        ("output=coc&x=1&y=1", "application/x-npy", 200, "application/x-npy"),
        ("output=coc&x=1&y=1&format=jpeg", "*/*", 406, None),
        ("x=1&y=1&format=npy", "*/*", 406, None),
        ("x=1&y=1&rack_person=0&rack_frames=2&format=webp", "*/*", 200, "image/webp"),
        ("x=1&y=1&rack_person=0&rack_frames=2", "image/jpeg", 406, None),
        ("x=1&y=1&rack_person=0&rack_frames=2&format=gif", "*/*", 406, None),
    ],
)
def test_every_view_has_its_formats(
    gateway: TestClient, query: str, accept: str, status: int, media_type: str | None
) -> None:
    answer = gateway.post(f"/focus?{query}", content=PHOTO, headers={"Accept": accept})
    assert answer.status_code == status
    assert media_type is None or answer.headers["content-type"] == media_type


def test_quality_and_format(gateway: TestClient) -> None:
    sizes = [
        len(gateway.post("/focus", params=MIDDLE | {"format": "jpeg", "quality": quality}, content=PHOTO).content)
        for quality in (20, 60, 95)
    ]
    assert sizes == sorted(set(sizes))


def test_a_constant_map_gives_the_photo_back(gateway: TestClient) -> None:
    for value in (0.0, 0.5, 1.0):
        files = {"image": PHOTO, "depth": npy(np.full((HEIGHT, WIDTH), value, np.float32))}
        answer = gateway.post("/focus?x=40&y=90&blur=1", files=files)
        np.testing.assert_array_equal(pixels_of(answer), SENT)
        assert float(answer.headers["x-coc-max"]) == 0


def test_a_constant_mask_is_everybody_or_nobody(gateway: TestClient) -> None:
    for level, people in ((255, "1"), (0, "0")):
        files = {"image": PHOTO, "mask": png(np.full((HEIGHT, WIDTH), level, np.uint8))}
        answer = gateway.post("/focus?x=40&y=90&blur=1", files=files)
        assert answer.headers["x-people"] == people
        assert (pixels_of(answer) == SENT).all() == (level == 255)
