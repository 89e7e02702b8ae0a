"""A photo of two people for the fake client, and what `POST /focus` answers, read back."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from fakes import FakeDepthClient, encoded
from PIL import Image

from service.inference import Prediction

WIDTH, HEIGHT = 192, 128
NEAR = (slice(60, 120), slice(20, 64))
"""Rows and columns of person 0: low in the picture, so near."""
FAR = (slice(16, 70), slice(116, 152))
"""Person 1."""
ON_NEAR = {"x": 40, "y": 90}
ON_FAR = {"x": 134, "y": 40}
ON_WALL = {"x": 90, "y": 12}


def crowd(lamp: bool = False) -> np.ndarray:
    """Noise, and two red people in it; uint8 (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(7)
    pixels = rng.integers(20, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    if lamp:
        pixels[:] = 12
        pixels[20:22, 80:82] = 255
    for place in (NEAR, FAR):
        red = rng.integers(205, 255, pixels[place].shape).astype(np.uint8)
        red[..., 1:] = rng.integers(0, 50, red[..., 1:].shape)
        pixels[place] = red
    return pixels


def standing(rows: np.ndarray, person: np.ndarray) -> np.ndarray:
    """A floor that comes nearer downwards, and every person as near as the floor at their feet.

    Args:
        rows: (H, W), growing downwards.
        person: (H, W), above 0 on people.
    """
    depth = rows.copy()
    count, labels = cv2.connectedComponents((person > 0).astype(np.uint8))
    for label in range(1, count):
        depth[labels == label] = rows[labels == label].max()
    return depth


class CrowdClient(FakeDepthClient):
    """The fake, with people who stand upright on its floor."""

    async def infer(
        self,
        model: str,
        image: np.ndarray,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        prediction = await super().infer(model, image, timeout_s=timeout_s, request_id=request_id)
        found = prediction.outputs
        found["inverse_depth"] = standing(found["inverse_depth"], found["person"])
        return replace(prediction, outputs={name: found[name] for name in (found if outputs is None else outputs)})


PHOTO = encoded(Image.fromarray(crowd()))


def inferences(client: FakeDepthClient) -> int:
    """Calls of the model, without the canary's."""
    return sum(shape != (64, 64, 3) for _, shape in client.calls)


def inner(place: tuple[slice, slice], margin: int = 12) -> tuple[slice, slice]:
    """The place without its border, over which what is nearer may blur."""
    rows, columns = place
    return slice(rows.start + margin, rows.stop - margin), slice(columns.start + margin, columns.stop - margin)


def pixels_of(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    stored = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    return stored.astype(int)


def gray_of(body: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def png(array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())
