"""Uploaded maps: what is read, and what is refused with a reason instead of being guessed at."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import UnusableMap
from service.maps import read_inverse_depth, read_mask

SIZE = (6, 9)
RAMP = np.linspace(0, 1, 54, dtype=np.float32).reshape(SIZE)


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def png(array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())


@settings(max_examples=40)
@given(arrays.arrays(np.float32, SIZE, elements=st.floats(0, 1, width=32)))
def test_npy_within_the_range_is_taken_as_it_is(values: np.ndarray) -> None:
    np.testing.assert_array_equal(read_inverse_depth(npy(values), SIZE), values)
    np.testing.assert_array_equal(read_mask(npy(np.asfortranarray(values)), SIZE), values)


@settings(max_examples=40)
@given(arrays.arrays(np.float32, SIZE, elements=st.floats(-1e6, 1e6, width=32)))
def test_other_units_are_stretched_and_keep_their_order(values: np.ndarray) -> None:
    read = read_inverse_depth(npy(values), SIZE)
    assert 0 <= read.min() <= read.max() <= 1
    order = np.argsort(values.ravel())
    assert (np.diff(read.ravel()[order]) >= 0).all()


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_the_largest_number_of_a_png_is_one(dtype: type, largest: int) -> None:
    stored = np.rint(RAMP * largest).astype(dtype)
    for read in (read_inverse_depth, read_mask):
        np.testing.assert_allclose(read(png(stored), SIZE), RAMP, atol=0.5 / largest + 1e-6)


def holed(value: float) -> np.ndarray:
    values = RAMP.copy()
    values[2, 3] = value
    return values


NOISE = np.random.default_rng(0).integers(0, 65_535, SIZE).astype(np.uint16)
RGB = np.zeros((*SIZE, 3), np.uint8)
LYING = npy(np.zeros((100, 100), np.float32)).replace(b"(100, 100)", b"(6, 9)    ")
PROMISING = npy(RAMP)[:128] + b"\0" * 10


REFUSED = {
    "nothing": b"",
    "text": b"hello",
    "png of floats cut short": png(RAMP[:-1]),
    "png turned": png(np.rint(RAMP.T * 255).astype(np.uint8)),
    "png in colour": png(RGB),
    "png with alpha": png(np.zeros((*SIZE, 4), np.uint8)),
    "png cut off": png(NOISE)[:-30],
    "png head": png(np.zeros(SIZE, np.uint8))[:20],
    "npy too narrow": npy(RAMP[:, :-1]),
    "npy turned": npy(RAMP.T),
    "npy of three axes": npy(RAMP[None]),
    "npy of one axis": npy(RAMP.ravel()),
    "float64": npy(RAMP.astype(np.float64)),
    "float16": npy(RAMP.astype(np.float16)),
    "uint8": npy((RAMP * 255).astype(np.uint8)),
    "big endian": npy(RAMP.astype(">f4")),
    "bool": npy(RAMP > 0.5),
    "objects": npy(np.array([{"a": 1}], object), allow_pickle=True),
    "fields": npy(np.zeros(SIZE, [("a", np.float32)])),
    "nan": npy(holed(np.nan)),
    "inf": npy(holed(np.inf)),
    "minus inf": npy(holed(-np.inf)),
    "npy one byte short": npy(RAMP)[:-1],
    "npy one byte long": npy(RAMP) + b"\0",
    "npy header cut off": npy(RAMP)[:40],
    "npy header of no end": b"\x93NUMPY\x01\x00\xff\xff{",
    "npy of no version": b"\x93NUMPY\x09\x00" + bytes(100),
    "npy that lies": LYING,
    "npy of promises": PROMISING,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize(("read", "field"), [(read_inverse_depth, "depth"), (read_mask, "mask")])
def test_refusals(data: bytes, read: Any, field: str) -> None:
    with pytest.raises(UnusableMap) as caught:
        read(data, SIZE)
    assert caught.value.field == field
    assert caught.value.status == 422
    assert caught.value.code == "invalid_map"


def test_a_refusal_names_both_sizes() -> None:
    with pytest.raises(UnusableMap) as caught:
        read_inverse_depth(npy(RAMP[:, :-1]), SIZE)
    assert caught.value.value == [6, 8]
    assert caught.value.limit == [6, 9]


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_masks_stay_within_their_range(value: float) -> None:
    with pytest.raises(UnusableMap):
        read_mask(npy(holed(value)), SIZE)


def test_a_small_file_cannot_ask_for_much_memory() -> None:
    huge = npy(np.zeros((1, 1), np.float32)).replace(b"(1, 1)", b"(9999999, 9999999)")
    for data in (huge, png(np.zeros((3000, 3000), np.uint8))):
        with pytest.raises(UnusableMap):
            read_inverse_depth(data, SIZE)


@settings(max_examples=60)
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", png(RGB)[:33], npy(RAMP)[:64]])
)
def test_any_bytes_are_a_map_or_a_refusal(tail: bytes, head: bytes) -> None:
    with pytest.raises(UnusableMap):
        read_inverse_depth(head + tail, SIZE)
