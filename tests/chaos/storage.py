"""F25: no room on the disk, none in shared memory."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.fakes import encoded

from .arena import Arena
from .fault import Skip, Unmet, fault
from .pictures import PHOTO, photo

_NO_DISK = (
    "mkdir -p disk && mount -t tmpfs -o size=512k tmpfs disk && export TMPDIR=$PWD/disk && "
    "for part in /tmp /; do mount --bind $part $part && mount -o remount,ro,bind $part; done"
)
"""Run in the directory of the run: half a megabyte to write to, and everything else read-only."""
_FORM = b"--b\r\nContent-Disposition: form-data; name=image; filename=p\r\n\r\n%s\r\n--b--\r\n"
_FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}


def _noise(side_px: int, format: str, **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (side_px, side_px, 3), np.uint8)
    return encoded(Image.fromarray(pixels), format, **options)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Skip("only root may mount file systems for the process")


@fault(
    "F25a",
    "root read-only, half a megabyte left for temporary files: a form of 3 MB",
    expected="200: uploads never touch the disk; small requests as before",
    without="uploads-in-memory",
    fast=True,
)
async def nowhere_to_write(arena: Arena) -> str:
    _need_root()
    gateway = await arena.gateway(under=arena.own_shm(more=_NO_DISK))
    large = _noise(1000, "PNG")
    answer = await gateway.ask("POST", "/depth?size=native", _FORM % large, _FORM_TYPE)
    answer.expect(200)
    (await gateway.ask("POST", "/depth", PHOTO)).expect(200)
    return f"{len(large) / 1e6:.1f} MB in {answer.seconds * 1000:.0f} ms, then a small photo"


@fault(
    "F25b",
    "`/dev/shm` full under the gateway: a photo of 9 MP that a decode worker hands over",
    expected="200: pixels are handed over in anonymous memory; small requests as before",
    without="anonymous-memory",
)
async def no_shared_memory(arena: Arena) -> str:
    _need_root()
    fill = "dd if=/dev/zero of=/dev/shm/full bs=4k count=64 status=none"
    gateway = await arena.gateway(under=arena.own_shm(size="64k", more=f"({fill} || true)"))
    large = encoded(Image.new("RGB", (3000, 3000), (9, 90, 200)), "PNG")
    answer = await gateway.ask("POST", "/depth?size=native&edges=sharp", large)
    answer.expect(200)
    (await gateway.ask("POST", "/depth", PHOTO)).expect(200)
    return f"9 MP in {answer.seconds * 1000:.0f} ms, then a small photo"


@fault(
    "F25c",
    "`/dev/shm` full under the embedded Triton: depth and people of 48 photos, 12 at a time",
    expected="200 for all: the models' memory was reserved at the start, for the largest batch there is",
    without="reserved-memory",
)
async def no_shared_memory_for_triton(arena: Arena) -> str:
    _need_root()
    gateway = await arena.gateway(embedded=True, under=arena.own_shm(size="24m"), cache_bytes=0)
    with (Path(f"/proc/{gateway.pid}/root/dev/shm") / "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
    seen: Counter[int] = Counter()
    for burst in range(4):
        asked = (gateway.ask("POST", "/analyze?outputs=depth,mask", photo(12 * burst + number)) for number in range(12))
        seen.update([answer.status for answer in await asyncio.gather(*asked)])
    if seen.keys() != {200}:
        raise Unmet(", ".join(f"{count} x {status}" for status, count in sorted(seen.items())))
    return f"{seen[200]} x 200"
