"""A stand-in for Triton, and small pictures; importable by every test."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from PIL import Image

from service.contract import MODELS, ModelSpec
from service.depth_client import Pair, Prediction, ServedModel
from service.errors import UnknownModel

Hook = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    return None


class FakeDepthClient:
    """Answers from the picture itself: lower rows are nearer, saturated red is a person.

    `hook` runs before every answer and may wait or raise.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.asked: list[tuple[tuple[int, ...], Sequence[str] | None]] = []
        self.pairs: list[Pair] = []
        self.hook: Hook = _nothing
        self.cancelled = 0
        self.closed = False

    async def infer(
        self,
        model: str,
        image: np.ndarray,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        self.calls.append((model, image.shape))
        self.asked.append((image.shape, outputs))
        try:
            await self.hook()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        height, width, _ = image.shape
        rows = np.linspace(2.0, 6.0, height, dtype=np.float32)
        red = (image[..., 0] > 200) & (image[..., 1] < 60)
        maps = {"inverse_depth": np.repeat(rows[:, None], width, axis=1), "person": red.astype(np.float32)}
        asked = {name: maps[name] for name in (maps if outputs is None else outputs)}
        return Prediction(outputs=asked, model=model, version="1")

    async def match(self, pair: Pair, *, timeout_s: float, request_id: str | None = None) -> Prediction:
        """4 pixels of disparity everywhere, 8 in the lower half; a loss that falls with every pair of a sequence."""
        self.pairs.append(pair)
        await self.hook()
        height, width, _ = pair.left.shape
        disparity = np.full((height, width), 4, np.float32)
        disparity[height // 2 :] = 8
        frames = sum(each.sequence == pair.sequence for each in self.pairs)
        said = (0.5 / frames, 3 if pair.adapt == "mad" else -1, frames, 0, 0, int(frames == 1))
        numbers = (-1, -1, 0, 0, 0, 1) if pair.adapt == "none" else said
        return Prediction(
            {"disparity_px": disparity, "adaptation": np.array(numbers, np.float32)}, "stereo_madnet", "1"
        )

    async def spec(self, model: str) -> ModelSpec:
        if model not in MODELS:
            raise UnknownModel("There is none.")
        return MODELS[model]

    async def is_ready(self, model: str) -> bool:
        return True

    async def served_models(self) -> list[ServedModel]:
        await self.hook()
        return [ServedModel(name, "1", True) for name in ("focus_on_depth", "focus")]

    async def close(self) -> None:
        self.closed = True


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A gray ramp with a red `person` standing in its right half."""
    ramp = np.linspace(40, 180, width, dtype=np.uint8)
    pixels = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2).copy()
    pixels[height // 4 : height * 7 // 8, width * 5 // 8 : width * 7 // 8] = (255, 0, 0)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
