"""Focal lengths from EXIF: hand-computed, turned, cropped, broken."""

import io
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from service.imaging import camera
from service.imaging.header import inspect

SIZE = (300, 400)
WIDE_SHARE = 26 / math.hypot(36, 24) * 500 / 400  # a phone's 26 mm on 4:3, by the diagonal


def photo(tags: dict[int, object], format: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"  # Pillow writes AVIF without EXIF when there is nothing beside the orientation
    exif.get_ifd(0x8769).update(
        {tag: IFDRational(value) if isinstance(value, float) else value for tag, value in tags.items()}
    )
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(buffer, format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_35_mm_equivalent(format: str) -> None:
    assert inspect(photo({0xA405: 26}, format)).focal_share == pytest.approx(WIDE_SHARE)


def test_a_turned_photo_has_the_same_camera() -> None:
    header = inspect(photo({0xA405: 26}, orientation=6))
    assert header.size == (400, 300)
    assert header.focal_share == pytest.approx(WIDE_SHARE)
    assert camera.known_focal(header.size, None, header.focal_share) == camera.Focal(
        pytest.approx(WIDE_SHARE * 400), "exif"
    )


@pytest.mark.parametrize(("unit", "resolution"), [(2, 25.4 * 400 / 36), (3, 10 * 400 / 36), (4, 400 / 36)])
def test_focal_length_and_sensor_resolution(unit: int, resolution: float) -> None:
    """50 mm in front of a sensor 36 mm wide."""
    tags = {0x920A: 50.0, 0xA20E: resolution, 0xA210: unit, 0xA002: 400, 0xA003: 300}
    assert inspect(photo(tags)).focal_share == pytest.approx(50 / 36, rel=1e-3)


def test_a_photo_that_was_made_smaller_keeps_its_share() -> None:
    tags = {0x920A: 50.0, 0xA20E: 4000 / 36, 0xA210: 4, 0xA002: 4000, 0xA003: 3000}
    assert inspect(photo(tags)).focal_share == pytest.approx(50 / 36, rel=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {0xA405: 0},  # by EXIF: unknown
        {0x920A: 50.0},  # of which sensor?
        {0xA405: 26, 0xA002: 400, 0xA003: 400},  # cropped since
        {0xA405: 3},  # 164 degrees
        {0x920A: 4.2, 0xA20E: 0.0, 0xA210: 2},
        {0x920A: 4.2, 0xA20E: 9000.0, 0xA210: 1},  # of no unit
        {0x920A: 40.0, 0xA20E: 5315.0, 0xA210: 2, 0xA002: 950, 0xA003: 712},  # made smaller, resolution kept
    ],
)
def test_what_cannot_be_known_is_not_made_up(tags: dict[int, object]) -> None:
    assert inspect(photo(tags)).focal_share is None


def test_the_block_of_a_tiff_has_no_signature() -> None:
    block = Image.open(io.BytesIO(photo({0xA405: 26}))).info["exif"]
    assert block.startswith(b"Exif")
    assert camera.read_focal_share(block[6:], SIZE) == camera.read_focal_share(block, SIZE) == pytest.approx(WIDE_SHARE)


def test_an_ordinary_field_of_view_where_nothing_is_known() -> None:
    focal = camera.assumed_focal((300, 400), None)
    assert focal.source == "default"
    assert math.degrees(2 * math.atan(200 / focal.px)) == pytest.approx(60)
    assert camera.assumed_focal((300, 400), 0.9) == camera.Focal(pytest.approx(360), "model")


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
@hypothesis.given(st.data())
def test_broken_exif_is_no_exif(data: st.DataObject) -> None:
    """Bytes changed, cut off or made up: a number in its range, or None; nothing is raised."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA405: 26, 0x920A: IFDRational(4.2), 0xA20E: IFDRational(9000), 0xA210: 2})
    block = bytearray(exif.tobytes())
    for _ in range(data.draw(st.integers(0, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(block[: data.draw(st.integers(0, len(block)))])
    share = camera.read_focal_share(data.draw(st.sampled_from([cut, bytes(block), cut[6:]])), SIZE)
    assert share is None or 0.1 <= share <= 100
