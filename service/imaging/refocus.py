"""Refocusing a photo after the fact: a thin lens over the layers of a depth map.

`prepare` does what depends on the photo alone, `render` what depends on focus and aperture, so that a second click on
the same photo costs only the second. The lens itself is in `lens`, its layers in `layers`, light in `light`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.errors import InvalidMap
from service.imaging.geometry import check_inside, resize
from service.imaging.layers import composite, opaque, stack
from service.imaging.lens import MAX_COC_SHARE, Aperture, Lens, strength_from_blur, strength_from_f_number
from service.imaging.light import Lamps, lamps, to_display, to_linear
from service.imaging.mixing import Mixed, owners, unmix
from service.imaging.snapping import snap_edges, snap_to_matte

__all__ = [
    "MAX_COC_SHARE",
    "Scene",
    "coc",
    "focus_depth_at",
    "prepare",
    "render",
    "strength_from_blur",
    "strength_from_f_number",
]

FloatMap = NDArray[np.float32]

_FLAT: Final = 1e-6  # range of inverse depth below which a map says nothing about depth
_WORKING_PIXELS: Final = 5_000_000  # above, blurred parts are rendered at a whole fraction of the size
_UNTOUCHED: Final = 1 / 512  # coverage in front of a sharp pixel that cannot change its display value
_REMAP_COLUMNS: Final = 16_384  # at once: OpenCV's remap refuses 32,767 and more
_WINDOW: Final = 4  # half width of the 9 x 9 window under a click
_EDGE_SPREAD: Final = 0.05  # inverse depth range in that window from which it is taken to straddle an edge


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A photo prepared for refocusing.

    `image` uint8 (H, W, 3); `inverse_depth` float32 (H, W) in 0..1, its edges snapped; `mattes` uint8 (N, H, W).
    Blur is made at 1 / `reduction` of the size, where `mixed` are the pixels that show two things and `lamps` small
    clipped lights, if there are any.
    """

    image: NDArray[np.uint8]
    inverse_depth: FloatMap
    mattes: NDArray[np.uint8]
    lamps: Lamps | None
    mixed: Mixed
    reduction: int

    @property
    def working_size(self) -> Size:
        """(height, width) at which blur is made."""
        height, width = self.inverse_depth.shape
        return math.ceil(height / self.reduction), math.ceil(width / self.reduction)

    @property
    def nbytes(self) -> int:
        """Bytes held, the photo's own included."""
        held = self.image.nbytes + self.inverse_depth.nbytes + self.mattes.nbytes + self.mixed.nbytes
        return held + (self.lamps.nbytes if self.lamps is not None else 0)


def prepare(image: NDArray[np.uint8], inverse_depth: FloatMap, mattes: FloatMap | None = None) -> Scene:
    """Everything about a photo that depends neither on focus nor on aperture.

    Args:
        image: uint8 (H, W, 3), sRGB.
        inverse_depth: (H, W) in 0..1, 1 = nearest; clipped to that, NaN counts as farthest.
        mattes: (N, H, W) in 0..1, one per person, or None.

    Raises:
        InvalidMap: shapes that do not agree.
    """
    size = image.shape[:2]
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InvalidMap(f"The photo must be uint8 (H, W, 3), not {image.dtype} {image.shape}.", field=None)
    if inverse_depth.shape != size:
        raise InvalidMap(
            f"The inverse depth map is {inverse_depth.shape}, the photo {size}; they must agree.",
            field="depth",
            value=list(inverse_depth.shape),
            limit=list(size),
        )
    if mattes is not None and (mattes.ndim != 3 or mattes.shape[1:] != size):
        raise InvalidMap(
            f"The mattes are {mattes.shape}, the photo {size}; they must be (N, H, W).",
            field="mask",
            value=list(mattes.shape),
            limit=list(size),
        )
    # of a number and NaN, fmax takes the number
    depth = snap_edges(np.fmin(np.fmax(inverse_depth.astype(np.float32), 0), 1))
    levels = np.zeros((0, *size), np.uint8)
    if mattes is not None and len(mattes):
        levels = np.stack([np.rint(np.fmin(np.fmax(matte, 0), 1) * 255).astype(np.uint8) for matte in mattes])
    order = _far_to_near(levels, depth)
    for index in order:
        depth = snap_to_matte(depth, levels[index])
    reduction = math.ceil(math.sqrt(depth.size / _WORKING_PIXELS)) if depth.size > _WORKING_PIXELS else 1
    small = (math.ceil(size[0] / reduction), math.ceil(size[1] / reduction))
    small_levels = np.zeros((len(levels), *small), np.uint8)
    for index, matte in enumerate(levels):
        small_levels[index] = resize(matte, small)
    owner = owners(small_levels, order)
    mixed = unmix(resize(to_linear(image), small), resize(image, small), _nearest(depth, small), small_levels, owner)
    found = lamps(image)
    return Scene(image, depth, levels, found.at_size((size[0], size[1]), small) if found else None, mixed, reduction)


def _far_to_near(mattes: NDArray[np.uint8], inverse_depth: FloatMap) -> list[int]:
    """Indices of the mattes by depth, so that nothing depends on the order that they came in."""

    def key(index: int) -> tuple[float, int, int]:
        inside = mattes[index] > 127
        depth = float(inverse_depth[inside].mean()) if inside.any() else -1.0
        return depth, int(mattes[index].argmax()), int(mattes[index].sum(dtype=np.int64))

    return sorted(range(len(mattes)), key=key)


def _nearest(values: FloatMap, size: Size) -> FloatMap:
    if values.shape == size:
        return values
    result: NDArray[Any] = cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return result


def render(
    scene: Scene,
    *,
    focus: float,
    strength_px: float,
    subject: int | Sequence[int] | None = None,
    blades: int = 0,
    rotation_deg: float = 0.0,
    curvature: float = 0.0,
    highlights: float | Literal["auto", "off"] = "auto",
    front: float = 1.0,
    back: float = 1.0,
    depth_range: float = 0.0,
) -> NDArray[np.uint8]:
    """The photo as a lens focused on `focus` would show it.

    A strength of 0 and a constant depth map, which says nothing about depth, give the input back bit for bit.

    Args:
        scene: from `prepare`.
        focus: inverse depth in focus, 0..1.
        strength_px: radius of the circle of confusion per unit of inverse depth, >= 0; no more than the photo's short
            side, which only matters on strips of more than 16 : 1.
        subject: index of the matte that counts as lying in the focal plane, whatever its depth, or several; None or
            empty for none.
        blades: corners of the aperture, 3 or more; 0 for a disc.
        rotation_deg: turn of the aperture, degrees against the clock; at 0 a corner points up.
        curvature: 0 straight blades .. 1 a disc.
        highlights: light that small clipped lamps in dark surroundings have lost, given back once they are blurred: a
            share of it, 0..1, "auto" for all of it, "off" for none.
        front: factor on the blur of what is nearer than the focus, 0..1.
        back: factor on the blur of what is farther.
        depth_range: inverse depths this far from `focus` to either side are still sharp; the radius counts from there.

    Returns:
        uint8 (H, W, 3). Pixels that are in focus and not behind a blurred nearer object are the input's own.

    Raises:
        ValueError: a number that is not finite or negative where it must not be, no such aperture or subject.
    """
    if not (math.isfinite(rotation_deg) and 0 <= curvature <= 1 and (blades == 0 or blades >= 3)):
        raise ValueError(
            f"aperture: {blades} blades (0, or 3 or more), turned by {rotation_deg}, curvature {curvature}"
        )
    if not isinstance(highlights, str) and not math.isfinite(highlights):
        raise ValueError(f"highlights {highlights}: finite")
    lens = Lens.of(min(scene.inverse_depth.shape), focus, strength_px, front, back, depth_range)
    subjects = _subjects(scene, subject)
    matte = _matte_of(scene, subjects)
    circles = lens.circles(scene.inverse_depth, matte > 127 if matte is not None else None)
    reach = max(float(circles.max()), -float(circles.min()))
    if float(np.ptp(scene.inverse_depth)) < _FLAT or reach == 0:
        return scene.image.copy()
    gain = float(highlights == "auto") if isinstance(highlights, str) else highlights
    mixed = scene.mixed
    front_circles = lens.circles(mixed.front_depth, np.isin(mixed.front_owner, subjects))
    back_circles = lens.circles(mixed.back_depth, np.isin(mixed.back_owner, subjects))
    aperture = Aperture(blades, rotation_deg, curvature)
    rendered, in_front = _rendered(scene, circles, front_circles, back_circles, gain, aperture)
    if scene.reduction > 1:
        return _with_sharp_parts(scene.image, rendered, in_front, circles, matte, scene.reduction)
    result = to_display(rendered)
    untouched = circles == 0
    untouched.ravel()[mixed.index] = (front_circles == 0) & (back_circles == 0)
    untouched &= in_front < _UNTOUCHED
    cv2.copyTo(scene.image, untouched.view(np.uint8), result)
    return result


def coc(
    scene: Scene,
    *,
    focus: float,
    strength_px: float,
    subject: int | Sequence[int] | None = None,
    front: float = 1.0,
    back: float = 1.0,
    depth_range: float = 0.0,
) -> FloatMap:
    """The circles of confusion that `render` uses, with the same arguments.

    Radius in pixels: strength_px * max(0, |inverse_depth - focus| - depth_range), eased to 0 below a pixel; 0 on the
    subjects.

    Returns:
        float32 (H, W), positive in front of the focal plane, negative behind it.

    Raises:
        ValueError: a number that is not finite, a negative strength, factor or range, or no such subject.
    """
    lens = Lens.of(min(scene.inverse_depth.shape), focus, strength_px, front, back, depth_range)
    matte = _matte_of(scene, _subjects(scene, subject))
    return lens.circles(scene.inverse_depth, matte > 127 if matte is not None else None)


def _subjects(scene: Scene, subject: int | Sequence[int] | None) -> list[int]:
    chosen = {subject} if isinstance(subject, int) else set(subject or ())
    for index in chosen:
        if not 0 <= index < len(scene.mattes):
            raise ValueError(f"there is no subject {index}; the scene has {len(scene.mattes)}")
    return sorted(chosen)


def _matte_of(scene: Scene, subjects: list[int]) -> NDArray[np.uint8] | None:
    """The matte of all subjects together: shares of one pixel add up."""
    matte: NDArray[Any] | None = None
    for index in subjects:
        matte = scene.mattes[index] if matte is None else cv2.add(matte, scene.mattes[index])
    return matte


def _rendered(
    scene: Scene, circles: FloatMap, front: FloatMap, back: FloatMap, gain: float, aperture: Aperture
) -> tuple[FloatMap, FloatMap]:
    """All layers over one another, (H, W, 4) linear light, and the coverage in front of the focus, at the working size.

    Args:
        scene: what is rendered.
        circles: of confusion, (H, W) at full size.
        front: of the nearer things in mixed pixels, (n,).
        back: of the farther.
        gain: share of the light that lamps have lost.
        aperture: shape of the blur.
    """
    size, mixed = scene.working_size, scene.mixed
    light = resize(to_linear(scene.image), size)
    small = np.float32(1 / scene.reduction)
    circles = _nearest(circles, size) * small
    circles.ravel()[mixed.index] = back * small
    light.reshape(-1, 3)[mixed.index] = mixed.back
    padding = -size[0] % 4, -size[1] % 4
    sharp = _padded(opaque(light), padding)
    light, fringe = sharp, mixed.front
    if scene.lamps is not None and gain:
        light = sharp.copy()
        fringe = mixed.front.copy()
        _shine(light, fringe, mixed, front != 0, scene.lamps, gain, size[1])
    rows, columns = np.divmod(mixed.index, size[1])
    layers = stack(_padded(circles, padding), rows, columns, fringe, front * small)
    rendered, in_front = composite(light, sharp, layers, aperture)
    return rendered[: size[0], : size[1]], in_front[: size[0], : size[1]]


def _shine(
    light: FloatMap, fringe: FloatMap, mixed: Mixed, blurred: NDArray[np.bool_], lamps: Lamps, gain: float, width: int
) -> None:
    """Add the light that lamps have lost: of a mixed pixel to that of its two things which covers most of it.

    Args:
        light: (H, W, 4), in mixed pixels that of the farther thing.
        fringe: (n, 4), what mixed pixels show of the nearer.
        mixed: these pixels.
        blurred: (n,), whether the nearer thing is out of focus.
        lamps: what is lost where.
        gain: share of it.
        width: of the photo.
    """
    lost = np.float32(gain) * lamps.lost
    behind = np.ones(lamps.index.size, np.bool_)
    if mixed.index.size:
        at = np.searchsorted(mixed.index, lamps.index) % mixed.index.size
        before = (mixed.index[at] == lamps.index) & (mixed.front[at, 3] > 0.5)
        behind &= ~before
        before &= blurred[at]
        fringe[at[before], :3] += lost[before] * fringe[at[before], 3:]
    rows, columns = np.divmod(lamps.index[behind], width)
    light[rows, columns, :3] += lost[behind]


def _padded(values: FloatMap, padding: tuple[int, int]) -> FloatMap:
    """The last row and column repeated so many times."""
    if padding == (0, 0):
        return values
    result: NDArray[Any] = cv2.copyMakeBorder(values, 0, padding[0], 0, padding[1], cv2.BORDER_REPLICATE)
    return result


def _with_sharp_parts(
    image: NDArray[np.uint8],
    rendered: FloatMap,
    in_front: FloatMap,
    coc: FloatMap,
    matte: NDArray[np.uint8] | None,
    shrink: int,
) -> NDArray[np.uint8]:
    """Display values, the input's own wherever it is in focus and nothing blurred lies before it."""
    size = coc.shape
    result = np.empty_like(image)
    ramp = np.float32(1 / shrink)
    small = to_display(rendered)
    for top in range(0, size[0], 512):  # strips: the float copies of a whole large photo would not fit the budget
        rows = slice(top, min(top + 512, size[0]))
        part = _rows_of(small, rows, size).astype(np.float32)
        weight = np.clip(1 - np.abs(coc[rows]) * ramp, 0, 1) * (1 - _rows_of(in_front, rows, size))
        if matte is not None:
            weight = np.where(
                matte[rows] > 127,
                matte[rows] / np.float32(255) * (1 - _rows_of(in_front, rows, size)),
                weight * (1 - matte[rows] / np.float32(255)),
            )
        part += weight[..., None] * (image[rows] - part)
        result[rows] = np.rint(part).astype(np.uint8)
        same = weight > 1 - _UNTOUCHED
        result[rows][same] = image[rows][same]
    return result


def _rows_of(small: NDArray[np.generic], rows: slice, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Rows of a small picture as it would be enlarged to `size`."""
    y, top, bottom = _places(rows.start, rows.stop, small.shape[0], size[0])
    parts = []
    for start in range(0, size[1], _REMAP_COLUMNS):
        x, left, right = _places(start, min(start + _REMAP_COLUMNS, size[1]), small.shape[1], size[1])
        source = np.ascontiguousarray(small[top:bottom, left:right])
        map_x, map_y = np.broadcast_to(x, (y.size, x.size)), np.broadcast_to(y[:, None], (y.size, x.size))
        parts.append(cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    rows_of: NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return rows_of


def _places(start: int, stop: int, small: int, large: int) -> tuple[FloatMap, int, int]:
    """Where pixels start..stop of `large` lie among `small`, counted from the first of the small ones they need.

    Returns:
        float32 places, the first small pixel that they need, the last one plus 1.
    """
    places = (np.arange(start, stop) + 0.5) * (small / large) - 0.5
    first = max(0, math.floor(float(places[0])))
    return (places - first).astype(np.float32), first, min(small, math.floor(float(places[-1])) + 2)


def focus_depth_at(inverse_depth: FloatMap, x: float, y: float, matte: FloatMap | None = None) -> float:
    """The inverse depth under a click: the median of a 9 x 9 window, on the clicked side of an edge only.

    Args:
        inverse_depth: (H, W).
        x: column of the click, 0..W-1.
        y: row.
        matte: (H, W) of the clicked person; the window then keeps to the clicked side of its border.

    Raises:
        OutsideImage: the click is not in the map.
    """
    height, width = inverse_depth.shape
    check_inside(x, y, height, width)
    row, column = int(y), int(x)
    rows = slice(max(0, row - _WINDOW), row + _WINDOW + 1)
    columns = slice(max(0, column - _WINDOW), column + _WINDOW + 1)
    window = inverse_depth[rows, columns]
    clicked = float(inverse_depth[row, column])
    side = np.ones(window.shape, bool)
    if matte is not None:
        side = (matte[rows, columns] > 0.5) == (matte[row, column] > 0.5)
    low, high = float(window[side].min()), float(window[side].max())
    if high - low > _EDGE_SPREAD:
        side &= (window > (low + high) / 2) == (clicked > (low + high) / 2)
    return float(np.median(window[side]))
