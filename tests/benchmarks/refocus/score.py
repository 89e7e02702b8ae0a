"""How far a refocused picture is from the truth, and where."""

from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np

from .scenes import View, Visible

CAP_DB = 60.0
"""PSNR counts as no more than this: above it is rounding, and a band without error has none."""

_EDGE_COC_PX = 1.0  # a depth edge is where the circle of confusion jumps by more
_SHARP_COC_PX = 0.5
_NEAR_COC_PX = 1.5  # nearer objects with a larger one count as blurred
_BAND_PX = 8


@dataclass(frozen=True, slots=True)
class Regions:
    """Where to look: bool (H, W).

    `inner` leaves out a border of one circle of confusion. `ring` lies round what is sharp, where depth jumps: a floor
    that grades out of focus has nothing that could bleed.
    """

    inner: np.ndarray
    edge: np.ndarray
    front: np.ndarray
    sharp: np.ndarray
    ring: np.ndarray


@dataclass(frozen=True, slots=True)
class Score:
    """Of one view. PSNR in dB on sRGB values; NaN where a view has no such region.

    Attributes:
        psnr: of all but the border.
        ssim: of luma, likewise.
        edge: PSNR within 8 pixels of depth edges.
        front: PSNR in the band round blurred near objects, one of their circles of confusion to both sides.
        focus: PSNR inside what is sharp.
        sharp: gradient energy kept there; 1 is right.
        bleed: mean absolute error of luma, in grey levels, in the 8 pixel ring round what is sharp, at depth edges.
    """

    psnr: float
    ssim: float
    edge: float
    front: float
    focus: float
    sharp: float
    bleed: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over views, and the lowest PSNR."""

    psnr: float
    ssim: float
    edge: float
    front: float
    focus: float
    sharp: float
    bleed: float
    worst: float


def circles(seen: Visible, view: View) -> np.ndarray:
    """Signed radius of the true circle of confusion at each pixel of the photo, positive in front: float32 (H, W)."""
    coc = (seen.inverse_depth - np.float32(view.focus)) * np.float32(view.strength_px)
    if view.subject is not None:
        coc[seen.mattes[seen.people.index(view.subject)] > 0.5] = 0
    return coc


def dilated(mask: np.ndarray, radius_px: int) -> np.ndarray:
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    return cv2.dilate(mask.astype(np.uint8), element) > 0


def regions(seen: Visible, view: View) -> Regions:
    coc = circles(seen, view)
    border = int(np.ceil(np.abs(coc).max()))
    inner = np.zeros(coc.shape, bool)
    inner[border : coc.shape[0] - border, border : coc.shape[1] - border] = True
    window = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(coc, window)
    edges = highest - cv2.erode(coc, window) > _EDGE_COC_PX
    near_edges = edges & (highest > _NEAR_COC_PX)
    front = np.zeros(coc.shape, bool)
    for radius in range(2, border + 1):  # each edge reaches as far as the circle of what is near there
        level = near_edges & (np.round(highest) == radius)
        if level.any():
            front |= dilated(level, radius)
    sharp = np.abs(coc) <= _SHARP_COC_PX
    if view.subject is not None:
        own = seen.mattes[seen.people.index(view.subject)]
        sharp &= (own < 0.05) | (own > 0.95)
    sharp &= ~front
    edge = dilated(edges, _BAND_PX)
    ring = dilated(sharp, _BAND_PX) & ~sharp & edge
    return Regions(inner, edge & inner, front & inner, sharp & inner, ring & inner)


def psnr(result: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """dB over the pixels `where`, all channels; `CAP_DB` at most, NaN without pixels."""
    if not where.any():
        return float("nan")
    error = (result[where].astype(np.float64) - truth[where]) ** 2
    return float(min(CAP_DB, 10 * np.log10(255**2 / max(error.mean(), 1e-9))))


def luma(image: np.ndarray) -> np.ndarray:
    """Grey levels 0..255, float32 (H, W), of sRGB values: BT.601."""
    return image.astype(np.float32) @ np.float32((0.299, 0.587, 0.114))


def ssim(result: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """Wang et al., 2004: Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03, mean over `where` of luma's."""
    first, second = luma(result), luma(truth)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    a, b = mean(first), mean(second)
    var_a, var_b = mean(first * first) - a * a, mean(second * second) - b * b
    both = mean(first * second) - a * b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * a * b + c1) * (2 * both + c2) / ((a * a + b * b + c1) * (var_a + var_b + c2))
    return float(index[where].mean())


def gradient_energy(image: np.ndarray, where: np.ndarray) -> float:
    grey = luma(image)
    down, right = np.diff(grey, axis=0, append=grey[-1:]), np.diff(grey, axis=1, append=grey[:, -1:])
    return float((down**2 + right**2)[where].sum())


def score(result: np.ndarray, truth: np.ndarray, where: Regions) -> Score:
    """Of one uint8 (H, W, 3) result against its truth."""
    inside = cv2.erode(where.sharp.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    kept = gradient_energy(truth, inside)
    grey_error = np.abs(luma(result) - luma(truth))
    return Score(
        psnr=psnr(result, truth, where.inner),
        ssim=ssim(result, truth, where.inner),
        edge=psnr(result, truth, where.edge),
        front=psnr(result, truth, where.front),
        focus=psnr(result, truth, where.sharp),
        sharp=gradient_energy(result, inside) / kept if kept > 0 else float("nan"),
        bleed=float(grey_error[where.ring].mean()) if where.ring.any() else float("nan"),
    )


def summary(scores: list[Score]) -> Summary:
    """Means over the views that have the region."""
    means = {field.name: float(np.nanmean([getattr(one, field.name) for one in scores])) for field in fields(Score)}
    return Summary(**means, worst=min(one.psnr for one in scores))


def row(values: Score | Summary) -> list[str]:
    """Figures as they stand in the tables."""
    digits = {"ssim": 3, "sharp": 2}
    return [f"{value:.{digits.get(name, 1)}f}" for name, value in asdict(values).items()]
