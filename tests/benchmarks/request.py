"""A whole request, JPEG to 16-bit depth PNG: the running gateway against a plain script with PyTorch."""

import asyncio
import http.client
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from service.imaging import codec
from service.imaging.geometry import Letterbox
from service.inference import TritonClient
from training.models import create_model

from .clock import Section, interleave
from .pictures import jpeg, photo

SIZES = {"720p": (720, 1280), "12 Mpx": (3000, 4000)}


@contextmanager
def gateway(repository: Path) -> Iterator[tuple[int, str]]:
    """A `depthlens serve` with caching off; gives its port and the address of its Triton."""
    environment = os.environ | {"DEPTHLENS_CACHE_BYTES": "0", "DEPTHLENS_MODEL_REPOSITORY": str(repository)}
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            triton = ""
            for line in process.stderr:
                if "tritonserver is ready on" in line:
                    triton = line.split("ready on ")[1].split()[0]
                    break
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            os.set_blocking(process.stderr.fileno(), False)
            yield port, triton
        finally:
            process.terminate()
            process.communicate(timeout=60)


def plain(network: torch.nn.Module, body: bytes) -> bytes:
    """What a short script does: decode, resize, run eagerly, enlarge, write a 16-bit PNG."""
    image = Image.open(io.BytesIO(body)).convert("RGB")
    small = image.resize((384, 288), Image.Resampling.BICUBIC)
    with torch.inference_mode():
        depth = network(torch.from_numpy(np.asarray(small)[None].copy()))[0][0].numpy()
    full = np.asarray(Image.fromarray(depth).resize(image.size, Image.Resampling.BICUBIC))
    stored = ((full - full.min()) / np.ptp(full) * 65535).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG")
    return buffer.getvalue()


def run(repository: Path, *, rounds: int) -> list[Section]:
    """Whole requests at two sizes, and what the gateway itself adds."""
    torch.set_num_threads(2)
    network = create_model("focus_on_depth_small").eval()
    parts = []
    with gateway(repository) as (port, triton):
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def post(route: str, body: bytes) -> bytes:
            connection.request("POST", route, body, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return content

        for name, size in SIZES.items():
            body = jpeg(photo(*size))
            timings = interleave(
                {
                    "plain PyTorch script, full size": lambda body=body: plain(network, body),
                    "gateway, full size": lambda body=body: post("/depth", body),
                    "gateway, size=native": lambda body=body: post("/depth?size=native", body),
                },
                rounds=max(3, rounds // (4 if size[0] > 2000 else 1)),
            )
            note = "CPU ms counts the calling process only, not the servers."
            parts.append(Section(f"Depth request, {name} JPEG to 16-bit PNG", timings, note))
            times = max(3, rounds // (4 if size[0] > 2000 else 1))
            focus = {"gateway": lambda body=body: post("/focus?rx=0.5&ry=0.5", body)}
            note = "No peer: nothing cached, plane mode at f/2.8."
            parts.append(Section(f"Focus request, {name} JPEG to JPEG", interleave(focus, rounds=times), note))
        parts.append(_hop(post, triton, rounds))
        connection.close()
    return parts


def _hop(post: Callable[[str, bytes], bytes], triton: str, rounds: int) -> Section:
    """What the gateway itself adds: its answer against decode + the same Triton called directly + encode."""
    body = jpeg(photo(720, 1280))
    runner = asyncio.Runner()

    async def connect() -> TritonClient:
        return TritonClient(triton)  # its channel belongs to the running loop

    client = runner.run(connect())

    def direct() -> bytes:
        upload = codec.inspect(body)
        letterbox = Letterbox.of(upload.height, upload.width)
        pixels = codec.decode(body, upload, min_side=min(letterbox.content_size)).pixels
        prediction = runner.run(client.infer("focus_on_depth", letterbox.fit(pixels), timeout_s=30))
        return codec.encode_npy(letterbox.crop(prediction.outputs["inverse_depth"]))

    timings = interleave(
        {
            "in-process decode, direct gRPC": direct,
            "gateway": lambda: post("/depth?size=native&format=npy", body),
        },
        rounds=rounds * 2,
    )
    runner.run(client.close())
    runner.close()
    return Section("The gateway's own cost, 720p JPEG to native float map", timings)
