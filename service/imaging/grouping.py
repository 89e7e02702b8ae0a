"""Several people whom outlines and depth left together, told apart by where their pixels vote they stand.

Every pixel of a person votes for that person's chest and height (`votes`). Where the pixels of one person, as found so
far, make two crowds of votes or more, each a good part of the whole and far from the other, they are as many people:
arms round shoulders, dancers, a head before a coat. Rims and hands that vote a little off stay where they are.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging import votes
from service.imaging.votes import Votes

FloatMap = NDArray[np.float32]
Labels = NDArray[np.int32]

_VOTERS: Final = 700  # pixels, of any number, that are asked who there is; then all are given to somebody
_LEAST: Final = 0.15  # of the pixels together: smaller crowds are a hand or a lock of hair
_SMALLEST_PX: Final = 64  # of the copy: people who are less tall are not asked; the network knows no smaller ones
_MEMBER: Final = 1.0  # distance up to which a vote belongs to a crowd
_SPENT: Final = 1.5  # distance up to which votes found no further crowd
_APART: Final = 2.5  # distance of the middles of two crowds from which they are two people
_SHARPNESS: Final = 2.0  # how steeply the say of a vote falls with its distance


def divided(labels: Labels, person: FloatMap, inverse_depth: FloatMap, image: NDArray[np.uint8]) -> Labels:
    """Labels of people, with those divided who are several.

    Args:
        labels: int32 (h, w), 0 = nobody; longer side at most `votes.LONG_SIDE`.
        person: (h, w) in 0..1, matte of all people.
        inverse_depth: (h, w) in 0..1, 1 = nearest.
        image: uint8 (h, w, 3), RGB.

    Returns:
        int32 (h, w): the old labels and, above the largest of them, new ones.
    """
    tall = [label for label in np.unique(labels) if label and _height_px(labels == label) >= _SMALLEST_PX]
    if not tall:
        return labels
    cast = votes.cast(person, inverse_depth, image)
    found = labels.copy()
    for label in tall:
        places = np.flatnonzero(labels == label)
        owner = _owners(_voices(cast, places))
        for further in range(1, int(owner.max()) + 1):
            found.ravel()[places[owner == further]] = found.max() + 1
    return found


def _height_px(mask: NDArray[np.bool_]) -> int:
    return int(cv2.boundingRect(mask.astype(np.uint8))[3])


def _voices(cast: Votes, places: NDArray[np.intp]) -> FloatMap:
    """(m, 3) at some pixels: column, row, logarithm of the height."""
    x, y, height = (values.ravel()[places] for values in (cast.x, cast.y, cast.height))
    voices: FloatMap = np.stack([x, y, np.log(height)], axis=1).astype(np.float32)
    return voices


def _owners(voices: FloatMap) -> NDArray[np.intp]:
    """(m,) numbers from 0: whose each vote is."""
    some = voices[:: -(-len(voices) // _VOTERS)]
    people = _crowds(some, _LEAST * len(some))
    apart = _distances(people, people)
    kept: list[int] = []
    for index in range(len(people)):
        if all(apart[other, index] > _APART for other in kept):
            kept.append(index)
    people = people[kept]
    while True:
        owner: NDArray[np.intp] = _distances(people, voices).argmin(axis=0)
        areas = np.bincount(owner, minlength=len(people))
        if areas.min() >= _LEAST * len(voices):
            return owner
        people = np.delete(people, int(areas.argmin()), axis=0)


def _crowds(voices: FloatMap, least: float) -> FloatMap:
    """The densest crowds of votes, one after the other: (n, 3), n at least 1.

    Args:
        voices: (m, 3), of `_voices`.
        least: votes of a crowd that is somebody.
    """
    apart = _distances(voices, voices)
    say = np.exp(-2 * voices[:, 2])  # people who are large in the picture have no more to say than small ones
    near = np.exp(-_SHARPNESS * apart) * say
    free = np.ones(len(voices), bool)
    found: list[FloatMap] = []
    while free.any():
        densest = int(np.where(free, near[:, free].sum(axis=1), -1).argmax())
        members = free & (apart[densest] < _MEMBER)
        if members.sum() >= least or not found:
            found.append(np.average(voices[members], axis=0, weights=say[members]))
        free &= apart[densest] >= _SPENT
    people: FloatMap = np.stack(found).astype(np.float32)
    return people


def _distances(people: FloatMap, voices: FloatMap) -> FloatMap:
    """Squared distances (n, m) of votes from people, in units of what votes for one person differ by."""
    x, y, height = (people[:, index, None] for index in range(3))
    smaller = np.exp(np.minimum(height, voices[:, 2]))
    result: FloatMap = (
        ((voices[:, 0] - x) / (votes.ACROSS * smaller)) ** 2
        + ((voices[:, 1] - y) / (votes.DOWN * smaller)) ** 2
        + ((voices[:, 2] - height) / votes.HEIGHT) ** 2
    )
    return result
