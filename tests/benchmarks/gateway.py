"""What the gateway adds: the same work done by a caller that decodes, asks Triton by gRPC and encodes itself."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from service.benchmark.clock import quartiles
from service.benchmark.effort import Effort
from service.benchmark.page import Part, Table
from service.benchmark.pictures import jpeg, photo
from service.benchmark.serving import Burst, Connection, Served, burst, load, serving
from service.imaging import codec, depth
from service.imaging.geometry import Letterbox
from service.inference import TritonClient

PATH = "/depth?size=native"
CALLERS = (8, 32)
THREADS = 2
"""For decoding and encoding, as the gateway's own default."""


def run(effort: Effort) -> Part:
    """One caller, then many."""
    return asyncio.run(_run(effort))


async def _run(effort: Effort) -> Part:
    body = jpeg(photo(*effort.small))
    with serving(effort.repository) as served:
        direct = Direct(TritonClient(served.triton))
        connection = await Connection.to(served.port)
        alone, figures = await _alone(direct, connection, body, effort)
        await connection.close()
        together, ratios = await _together(direct, served, body, effort)
        await direct.close()
    return Part("gateway", (alone, together), figures | ratios)


class Direct:
    """A caller that needs no gateway: decode and encode in two threads, Triton by gRPC."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(THREADS)

    async def depth(self, body: bytes) -> bytes:
        """JPEG to the 16-bit PNG that the gateway answers with."""
        loop = asyncio.get_running_loop()
        letterbox, image = await loop.run_in_executor(self._pool, self._read, body)
        found = await self._client.infer("focus_on_depth", image, outputs=["inverse_depth"], timeout_s=60)
        return await loop.run_in_executor(self._pool, self._written, letterbox, found.outputs["inverse_depth"])

    @staticmethod
    def _read(body: bytes):
        header = codec.inspect(body)
        letterbox = Letterbox.of(header.height, header.width)
        return letterbox, letterbox.fit(codec.decode(body, header, min_side=min(letterbox.content_size)).pixels)

    @staticmethod
    def _written(letterbox: Letterbox, values) -> bytes:
        return codec.encode_png16(depth.quantise16(letterbox.crop(values))[0])

    async def close(self) -> None:
        self._pool.shutdown()
        await self._client.close()


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1000


async def _alone(direct: Direct, connection: Connection, body: bytes, effort: Effort) -> tuple[Table, dict[str, float]]:
    """One request at a time, the two by turns; which comes first changes every time."""
    calls = [lambda: direct.depth(body), lambda: connection.post(PATH, body)]
    pairs = []
    for turn in range(effort.many * 4 + 1):
        order = (0, 1) if turn % 2 else (1, 0)
        times = {which: await _timed(calls[which]) for which in order}
        if turn:
            pairs.append((times[0], times[1]))
    low, middle, high = quartiles([theirs - ours for ours, theirs in pairs])
    first, second = (statistics.median(each) for each in zip(*pairs, strict=True))
    rows = (
        ("direct gRPC", f"{first:.2f}", "", ""),
        ("gateway", f"{second:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"),
    )
    note = f"720p JPEG to native 16-bit PNG, the default network; medians of {len(pairs)} pairs."
    header = ("one caller", "ms", "more, ms", "quartiles")
    return Table("The gateway's own cost", header, rows, note), {"hop, ms": middle}


async def _together(direct: Direct, served: Served, body: bytes, effort: Effort) -> tuple[Table, dict[str, float]]:
    """Many callers, the two by turns."""
    rows, figures = [], {}
    for callers in CALLERS:
        pairs: list[tuple[Burst, Burst]] = []
        for _ in range(effort.rounds):
            first = await burst([lambda: direct.depth(body)] * callers, effort.seconds)
            pairs.append((first, await load(served.port, PATH, body, callers=callers, seconds=effort.seconds)))
        low, middle, high = quartiles([theirs.rate / ours.rate for ours, theirs in pairs])
        rates = [statistics.median(pair[side].rate for pair in pairs) for side in (0, 1)]
        rows.append((str(callers), f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"))
        figures[f"throughput ratio, {callers} callers"] = middle
    header = ("callers", "direct gRPC, photos/s", "gateway, photos/s", "ratio", "quartiles")
    note = "Closed loop, turns of both; the direct side's decoding is done by the callers' own process."
    return Table("The gateway under load", header, tuple(rows), note), figures
