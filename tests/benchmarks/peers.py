"""What people do instead: transformers' pipeline, a short script, and a FastAPI handler around torch.

`python -m tests.benchmarks.peers FOLDER SIDE PORT` serves the handler.
"""

import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image


def pipeline(network: Any, side: int) -> Callable[[bytes], bytes]:
    """JPEG to an 8-bit depth PNG of the photo's size by `pipeline("depth-estimation")`.

    The photo becomes a square of `side`, as ours is: by itself it would keep the photo's aspect and see 1.8 times as
    many pixels of one of 16:9.
    """
    from transformers import DPTImageProcessor
    from transformers import pipeline as make

    processor = DPTImageProcessor(
        size={"height": side, "width": side},
        keep_aspect_ratio=False,
        ensure_multiple_of=14,
        resample=Image.Resampling.BICUBIC,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = make("depth-estimation", model=network, image_processor=processor, device="cpu")

    def call(body: bytes) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            depth = run(Image.open(io.BytesIO(body)))["depth"]
        buffer = io.BytesIO()
        depth.save(buffer, "PNG")
        return buffer.getvalue()

    return call


def script(network: torch.nn.Module, size: tuple[int, int]) -> Callable[[bytes], bytes]:
    """JPEG to a 16-bit depth PNG of the photo's size as a short script does it, in eager torch."""

    def call(body: bytes) -> bytes:
        image = Image.open(io.BytesIO(body)).convert("RGB")
        small = image.resize(size[::-1], Image.Resampling.BICUBIC)
        with torch.inference_mode():
            depth = network(torch.from_numpy(np.asarray(small)[None].copy()))[0][0].numpy()
        full = np.asarray(Image.fromarray(depth).resize(image.size, Image.Resampling.BICUBIC))
        stored = ((full - full.min()) / max(float(np.ptp(full)), 1e-9) * 65535).astype(np.uint16)
        buffer = io.BytesIO()
        Image.fromarray(stored).save(buffer, "PNG")
        return buffer.getvalue()

    return call


def application(run: Callable[[bytes], bytes]) -> FastAPI:
    """The handler as tutorials have it: the model is called where it stands, in the event loop."""
    app = FastAPI()

    @app.post("/depth")
    async def depth(request: Request) -> Response:
        return Response(run(await request.body()), media_type="image/png")

    return app


def main() -> None:
    from transformers import DepthAnythingForDepthEstimation

    folder, side, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    network = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    # The loop stands still while the model runs, and uvicorn then takes callers who wait for idle ones: with its own
    # limit of 5 s it closes their connections as soon as four photos take longer.
    options: dict[str, Any] = {"access_log": False, "log_level": "error", "timeout_keep_alive": 600}
    uvicorn.run(application(pipeline(network, side)), host="127.0.0.1", port=port, **options)


if __name__ == "__main__":
    main()
