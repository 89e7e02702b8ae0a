"""People told apart by what their pixels say: where each person's chest is, how tall that person is, who is alike.

Every pixel votes (`votes`). Where votes crowd, somebody is, or two at different depths, where what is said falls into
two heaps, as in the X-means of Pelleg and Moore (ICML 2000). Then each pixel goes to whom its own vote and those of its
surroundings of one colour lie nearest. The network learned from groups: of somebody seen close up it may take a rim of
hair, a sleeve or a bag for another person, so that such people stay as outlines and depth have them.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging import votes
from service.imaging.guided import Guide
from service.imaging.parts import DEPTH_JUMP
from service.imaging.votes import Votes

FloatMap = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

_SMALLEST_SIDE: Final = 256  # longer one, of a picture whose people are asked; the network learned from larger ones
_VOTERS: Final = 1500  # pixels, of any number, that are asked who there is; then all are given to somebody
_CROWD: Final = 0.002  # of the picture: smaller crowds of votes are nobody
_PERSON: Final = 0.003  # likewise, of what somebody has in the end
_MEMBER: Final = 0.5  # distance up to which a vote belongs to a crowd
_SPENT: Final = 0.9  # distance up to which votes found no further crowd
_TWO: Final = 5.0  # distance of the middles of two heaps of votes that are two people, who also differ by
_STEP: Final = 0.1  # of relative inverse depth; by likeness alone who sits or bends would be two
_HEAPING: Final = (cv2.TERM_CRITERIA_COUNT, 6, 0.0)  # rounds in which the heaps are found
_ROUNDS: Final = 2  # of giving pixels to people and seeing what those are like
_SHARPNESS: Final = 2.0  # how steeply the say of a vote falls with its distance
_FARTHEST: Final = 30.0  # distance from which on nothing is said for a person at all
_WINDOW_PX: Final = 8  # reach of the windows in which pixels of one colour have one owner
_CLOSE_UP: Final = 0.65  # of the picture's longer side: who is taller is divided by outlines and depth, save for
_PART: Final = 0.15  # of such a person: what is larger, and
_APART: Final = 2.5  # votes for somebody as far away as this
_OWN: Final = 0.1  # of somebody told apart by outlines: how much lies at a depth of its own
_STRANGE: Final = 8.0  # distance of its votes from whom they are nearest to: what is farther is somebody else


def divided(labels: Labels, person: FloatMap, inverse_depth: FloatMap, image: NDArray[np.uint8]) -> Labels:
    """Labels of people as votes have it; those seen close up keep theirs, unless votes are very sure.

    Args:
        labels: int32 (h, w), 0 = nobody, as outlines and depth tell people apart; longer side at most
            `votes.LONG_SIDE`.
        person: (h, w) in 0..1, matte of all people.
        inverse_depth: (h, w) in 0..1, 1 = nearest.
        image: uint8 (h, w, 3), RGB.

    Returns:
        int32 (h, w): 0 where `labels` has it; who stays as it was keeps its label, all others get new ones, above the
        largest. Pictures too small for the network come back as they are.
    """
    asked = labels > 0
    if not asked.any() or max(labels.shape) < _SMALLEST_SIDE:
        return labels
    voices = _voices(votes.cast(person, inverse_depth, image))
    people = _people(voices, asked, inverse_depth)
    if not len(people):
        return labels
    people, owner = _owners(people, voices[asked.ravel()], asked, image)
    found = np.where(asked, owner + labels.max() + 1, 0).astype(np.int32)
    tallest = np.log(_CLOSE_UP * max(labels.shape))
    apart = _distances(people[:, :3], people[:, :3])
    for label in np.unique(labels[asked]):
        mine = labels == label
        areas = np.bincount(owner[mine], minlength=len(people))
        main = int(areas.argmax())
        if people[main, 2] > tallest:
            sure = (areas > _PART * mine.sum()) & (apart[main] > _APART)
            found[mine & ~sure[owner]] = label
        elif np.median(_distances(people[[main]], voices[mine.ravel()])) > _STRANGE:
            found[mine & (owner == main)] = label
    return _at_one_depth(found, labels, inverse_depth)


def _at_one_depth(found: Labels, labels: Labels, inverse_depth: FloatMap) -> Labels:
    """`found`, with those divided of whom outlines made two at clearly different depths."""
    result = found.copy()
    for number in np.unique(found[found > 0]):
        mine = found == number
        areas = np.bincount(labels[mine])
        main = int(areas.argmax())
        level = np.median(inverse_depth[mine & (labels == main)])
        for label in np.flatnonzero(areas):
            part = mine & (labels == label)
            large = areas[label] >= max(_OWN * (labels == label).sum(), _CROWD * labels.size)
            if label != main and large and abs(np.median(inverse_depth[part]) - level) > DEPTH_JUMP:
                result[part] = result.max() + 1
    return result


def _voices(cast: Votes) -> FloatMap:
    """(h * w, n): column, row, logarithm of the height, likeness."""
    x, y, height = (values.ravel() for values in (cast.x, cast.y, cast.height))
    voices: FloatMap = np.column_stack([x, y, np.log(height), cast.likeness.reshape(x.size, -1)]).astype(np.float32)
    return voices


def _people(voices: FloatMap, asked: Mask, inverse_depth: FloatMap) -> FloatMap:
    """(n, ...) like voices: who there is, the means of what those who vote for each of them say."""
    places = np.flatnonzero(asked)
    share = asked.size / len(places)
    places = places[:: -(-len(places) // _VOTERS)]
    some, depths = voices[places], inverse_depth.ravel()[places]
    crowds = _crowds(some[:, :3], _CROWD * share)
    if not len(crowds):
        return crowds
    typical = _means(some, _distances(crowds, some[:, :3]).argmin(axis=0))
    owner = _distances(typical, some).argmin(axis=0)
    waiting = [owner == index for index in np.unique(owner)]
    found: list[FloatMap] = []
    while waiting:
        members = waiting.pop()
        halves = _halves(members, some, depths, _PERSON * share * len(some))
        waiting += halves
        if not halves:
            found.append(some[members].mean(axis=0))
    people: FloatMap = np.stack(found)
    return people


def _means(voices: FloatMap, owner: NDArray[np.intp]) -> FloatMap:
    """Means of the voices of each owner who has any."""
    means: FloatMap = np.stack([voices[owner == index].mean(axis=0) for index in np.unique(owner)])
    return means


def _halves(members: Mask, voices: FloatMap, depths: FloatMap, least: float) -> list[Mask]:
    """Members (m,) of voices (m, n) in two heaps that differ in what they say and in depth; none where one person is.

    `least` is the number of voices that somebody has at least.
    """
    theirs = voices[members]
    if len(theirs) < max(2, 2 * least):
        return []
    height = np.exp(np.median(theirs[:, 2]))
    units = np.ones(voices.shape[1], np.float32)
    units[:3] = votes.ACROSS * height, votes.DOWN * height, votes.HEIGHT
    scaled = theirs / units
    around = scaled - scaled.mean(axis=0)
    longest = np.linalg.eigh(around.T @ around)[1][:, -1]
    sides = (around @ longest > 0).astype(np.int32)
    _, sides, middles = cv2.kmeans(scaled, 2, sides, _HEAPING, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    halves = [members.copy(), members.copy()]
    halves[0][members], halves[1][members] = (sides.ravel() == side for side in (0, 1))
    apart = np.square(middles[0] - middles[1]).sum()
    if apart < _TWO or min(half.sum() for half in halves) < max(1, least):
        return []
    step = abs(np.median(depths[halves[0]]) - np.median(depths[halves[1]]))
    return halves if step > _STEP else []


def _crowds(voices: FloatMap, least: float) -> FloatMap:
    """The densest crowds of votes, one after the other: (n, 3).

    Args:
        voices: (m, 3), of `_voices`.
        least: share of the votes that is somebody.
    """
    apart = _distances(voices, voices)
    say = np.exp(-2 * voices[:, 2])  # people who are large in the picture have no more to say than small ones
    near = np.exp(-_SHARPNESS * apart) * say
    free = np.ones(len(voices), bool)
    found: list[FloatMap] = []
    while free.any():
        densest = int(np.where(free, near @ free.astype(np.float32), -1).argmax())
        members = free & (apart[densest] < _MEMBER)
        if members.sum() >= least * len(voices):
            found.append(np.average(voices[members], axis=0, weights=say[members]))
        free &= apart[densest] >= _SPENT
    people: FloatMap = np.asarray(found, np.float32).reshape(-1, voices.shape[1])
    return people


def _owners(
    people: FloatMap, voices: FloatMap, asked: Mask, image: NDArray[np.uint8]
) -> tuple[FloatMap, NDArray[np.intp]]:
    """Those of the people who have enough pixels, and whose each pixel is, (h, w), where any was asked.

    `voices` are those of the pixels asked.
    """
    owner = np.zeros(asked.shape, np.intp)
    if len(people) == 1:
        return people, owner
    guide = Guide(image, _WINDOW_PX)
    for _ in range(_ROUNDS):
        people, owner = _shared(people, voices, asked, guide)
        people[:, 3:] = _means(voices[:, 3:], owner[asked])
    return people, owner


def _shared(people: FloatMap, voices: FloatMap, asked: Mask, guide: Guide) -> tuple[FloatMap, NDArray[np.intp]]:
    """`_owners` of people who are like what is said of them."""
    apart = _distances(people, voices)
    while True:
        likely = np.exp(-np.minimum(apart - apart.min(axis=0), _FARTHEST))
        likely /= likely.sum(axis=0)
        shares = np.zeros((len(people), *asked.shape), np.float32)
        shares[:, asked] = likely
        owner: NDArray[np.intp] = np.argmax([guide.smoothed(share) for share in shares], axis=0)
        areas = np.bincount(owner[asked], minlength=len(people))
        if len(people) == 1 or areas.min() >= _PERSON * asked.size:
            return people, owner
        people, apart = (np.delete(rows, int(areas.argmin()), axis=0) for rows in (people, apart))


def _distances(people: FloatMap, voices: FloatMap) -> FloatMap:
    """Squared distances (n, m) of votes from people, in units of what votes for one person differ by."""
    x, y, height = (people[:, index, None] for index in range(3))
    smaller = np.exp(np.minimum(height, voices[:, 2]))
    result: FloatMap = (
        ((voices[:, 0] - x) / (votes.ACROSS * smaller)) ** 2
        + ((voices[:, 1] - y) / (votes.DOWN * smaller)) ** 2
        + ((voices[:, 2] - height) / votes.HEIGHT) ** 2
    )
    for index in range(3, people.shape[1]):
        result += (voices[:, index] - people[:, index, None]) ** 2
    return result
