"""Heads found on outlines drawn by hand."""

import cv2
import numpy as np
import pytest

from service.imaging import heads


def figure(mask: np.ndarray, x: int, crown: int, radius: int) -> None:
    """Head, neck, shoulders and body of one who stands upright."""
    pixels = mask.view(np.uint8)
    cv2.circle(pixels, (x, crown + radius), radius, 1, -1)
    cv2.rectangle(pixels, (x - radius // 2, crown + radius), (x + radius // 2, crown + 3 * radius), 1, -1)
    cv2.ellipse(pixels, (x, crown + 4 * radius), (2 * radius, round(1.5 * radius)), 0, 180, 360, 1, -1)
    cv2.rectangle(pixels, (x - 2 * radius, crown + 4 * radius), (x + 2 * radius, crown + 11 * radius), 1, -1)


def arm(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], width: int) -> None:
    cv2.line(mask.view(np.uint8), start, end, 1, width)


def blank() -> np.ndarray:
    return np.zeros((240, 320), bool)


def test_nobody() -> None:
    assert heads.find(blank()) == []


@pytest.mark.parametrize("radius", [4, 8, 14])
def test_one_head_of_its_size(radius: int) -> None:
    mask = blank()
    figure(mask, 150, 20, radius)
    (head,) = heads.find(mask)
    assert abs(head.x - 150) <= 2
    assert abs(head.y - 20) <= 1
    assert head.radius == pytest.approx(radius, rel=0.35)


@pytest.mark.parametrize("apart", [26, 34, 44])
def test_two_who_touch_have_two_heads(apart: int) -> None:
    mask = blank()
    figure(mask, 120, 30, 10)
    figure(mask, 120 + apart, 34, 10)
    assert [pytest.approx(head.x, abs=2) for head in heads.find(mask)] == [120, 120 + apart]


def test_raised_arm_is_no_head() -> None:
    mask = blank()
    figure(mask, 150, 40, 12)
    arm(mask, (172, 92), (196, 20), 9)
    assert [head.x for head in heads.find(mask)] == [pytest.approx(150, abs=2)]


def test_stretched_arm_and_bag_are_no_heads() -> None:
    mask = blank()
    figure(mask, 150, 40, 12)
    arm(mask, (160, 95), (250, 90), 9)
    mask[120:170, 100:140] = True  # a bag on the hip
    assert len(heads.find(mask)) == 1


def test_single_hairs_are_no_heads() -> None:
    mask = blank()
    figure(mask, 150, 40, 12)
    for end in (138, 146, 155, 163):
        arm(mask, (150, 52), (end, 28), 1)
    assert len(heads.find(mask)) == 1
