"""`POST /batch` with the real Triton: its batcher joins the photos of one request, and each gets its own map."""

import asyncio
import io
import json
import zipfile

import httpx2
import numpy as np
import pytest
from embedded_triton import ServedTriton
from fakes import encoded, picture
from tritonclient.grpc import InferenceServerClient

from service.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.integration

PHOTOS = 12
TRIES = 20
"""Whether photos meet at the network is a matter of milliseconds; about one request in ten joins none."""


def joined(triton: ServedTriton) -> int:
    """How often the network has run on more than one photo."""
    client = InferenceServerClient(triton.grpc_url)
    try:
        said = client.get_inference_statistics("focus_on_depth", as_json=True)["model_stats"][0]
    finally:
        client.close()
    return sum(
        int(entry["compute_infer"].get("count", 0))
        for entry in said.get("batch_stats", [])
        if int(entry["batch_size"]) > 1
    )


def test_photos_of_a_batch_are_joined(triton: ServedTriton) -> None:
    photos = [encoded(picture(240 + 3 * index, 160 + 2 * index)) for index in range(PHOTOS)]  # one aspect, one size

    async def scenario() -> tuple[httpx2.Response, httpx2.Response]:
        app = create_app(Settings(triton_url=triton.grpc_url, max_inflight=PHOTOS, cache_bytes=0))
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client:
            before = joined(triton)
            for _ in range(TRIES):
                answer = await client.post(
                    "/batch?outputs=depth:npy,depth:ply&max_points=2000",
                    files=[("image", (f"{index}.png", photo)) for index, photo in enumerate(photos)],
                )
                if joined(triton) > before:
                    break
            else:
                pytest.fail("no photo was joined with another")
            alone = await client.post("/depth?format=npy", content=photos[7])
            await app.state.gateway.pipeline.close()
            await app.state.gateway.client.close()
        return answer, alone

    answer, alone = asyncio.run(scenario())
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        report = json.loads(archive.read("report.json"))
        assert [item["status"] for item in report["items"]] == [200] * PHOTOS
        in_batch = np.load(io.BytesIO(archive.read("7/depth.npy")))
    values = np.load(io.BytesIO(alone.content))
    assert np.abs(in_batch - values).mean() < 0.01 * np.ptp(values), "its own map, and not a neighbour's"
