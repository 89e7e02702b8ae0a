"""Rectangles round what is there."""

import numpy as np

from service.imaging.windows import Window, any_in_cells, merged, pieces, rectangles, widened


def marked(size: tuple[int, int], *places: tuple[int, int]) -> np.ndarray:
    bits = np.zeros(size, np.uint32)
    for place in places:
        bits[place] = 1
    return any_in_cells(bits) > 0


def test_cells_hold_every_bit_set_in_them_up_to_the_last_row_and_column() -> None:
    bits = np.zeros((20, 40), np.uint32)
    bits[0, 15], bits[15, 0], bits[0, 16], bits[19, 39] = 1, 4, 2, 8
    assert any_in_cells(bits).tolist() == [[5, 2, 0], [0, 0, 8]]


def test_windows_reach_as_far_as_asked_and_end_with_the_photo() -> None:
    cells = marked((100, 200), (3, 4), (70, 150))
    near = rectangles(cells, (100, 200))
    assert sorted(near, key=lambda one: one.top) == [Window(0, 16, 0, 16), Window(64, 80, 144, 160)]
    assert rectangles(widened(marked((100, 200), (99, 199)), 1), (100, 200)) == [Window(80, 100, 176, 200)]


def test_windows_that_meet_are_one() -> None:
    first, second, third = Window(0, 10, 0, 10), Window(9, 20, 9, 20), Window(0, 5, 15, 16)
    assert merged([first, third]) == [first, third]
    # the one in the middle makes a window with the first that then holds the third
    assert merged([first, third, second]) == [Window(0, 20, 0, 20)]


def test_pieces_are_the_columns_with_something_in_the_windows_own_rows() -> None:
    cells = marked((64, 100), (0, 0), (20, 20), (20, 35), (40, 99))
    assert list(pieces(cells, Window(16, 32, 0, 100))) == [Window(16, 32, 16, 48)]
    assert list(pieces(cells, Window(16, 48, 32, 100))) == [Window(16, 48, 32, 48), Window(16, 48, 96, 100)]
    assert list(pieces(cells, Window(48, 64, 0, 100))) == []
