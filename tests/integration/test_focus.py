"""`POST /focus` with the committed network behind it: when it is asked, and when it is not."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import numpy as np
import pytest
from crowds import npy
from embedded_triton import ServedTriton
from fakes import encoded, picture
from PIL import Image

from service.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 240, 160
PHOTO = encoded(picture(WIDTH, HEIGHT), "JPEG", quality=95)
CLICK = {"x": 60, "y": 80}


@asynccontextmanager
async def gateway(triton: ServedTriton) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on the loop that its connection to Triton belongs to; without the canary, which infers too."""
    app = create_app(Settings(triton_url=triton.grpc_url))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway", timeout=60) as client:
        yield client
        await app.state.gateway.pipeline.close()
        await app.state.gateway.client.close()


async def inferences(client: httpx2.AsyncClient) -> float:
    """How many requests have had the stage `infer`."""
    lines = (await client.get("/metrics")).text.splitlines()
    counts = [line for line in lines if line.startswith('depthlens_stage_seconds_count{stage="infer"}')]
    return float(counts[0].split()[-1]) if counts else 0.0


def test_a_token_and_own_maps_ask_no_network(triton: ServedTriton) -> None:
    ramp = np.repeat(np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None], WIDTH, axis=1)
    maps = {"depth": npy(ramp), "mask": npy(ramp * 0)}

    async def scenario() -> None:
        async with gateway(triton) as client:
            own = await client.post("/focus", params=CLICK, files={"image": PHOTO} | maps)
            assert own.headers["x-model"] == "none"
            assert await inferences(client) == 0
            first = await client.post("/focus", params=CLICK | {"blur": 1}, content=PHOTO)
            assert first.headers["x-model"] == "focus"
            assert await inferences(client) == 1
            scene = {"scene": first.headers["x-scene"]}
            again = await client.post("/focus", params=CLICK | {"blur": 1} | scene)
            assert again.content == first.content
            pull = await client.post("/focus", params=CLICK | {"rack_rx": 1, "rack_ry": 1, "rack_frames": 4} | scene)
            assert Image.open(io.BytesIO(pull.content)).n_frames == 4
            assert await inferences(client) == 1

    asyncio.run(scenario())


def test_what_it_used_can_be_sent_back(triton: ServedTriton) -> None:
    """Depth and matte of one answer, uploaded with the photo, give very nearly the same answer."""
    query = CLICK | {"mode": "plane", "format": "png", "depth_range": 0}

    async def scenario() -> None:
        async with gateway(triton) as client:
            depth = await client.post("/depth?edges=sharp", content=PHOTO)
            mask = await client.post("/segmentation?edges=sharp", content=PHOTO)
            network = await client.post("/focus", params=query, content=PHOTO)
            files = {"image": PHOTO, "depth": depth.content, "mask": mask.content}
            own = await client.post("/focus", params=query, files=files)
        depths = [float(answer.headers["x-focus-depth"]) for answer in (own, network)]
        assert depths[0] == pytest.approx(depths[1], abs=0.01)
        assert np.abs(pixels(own.content) - pixels(network.content)).mean() < 1

    asyncio.run(scenario())


def pixels(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)
