"""A service to measure: started as users start it, asked over kept connections by one caller or by many."""

import asyncio
import http.client
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Final

_READY_TIMEOUT_S: Final = 300.0
_TIMEOUT_S: Final = 120
_UNBOUNDED: Final = {
    "DEPTHLENS_MAX_WAITING": "1000",
    "DEPTHLENS_MAX_WAIT_S": "60",
    "DEPTHLENS_REQUEST_TIMEOUT_S": str(_TIMEOUT_S),
    "DEPTHLENS_LOG_LEVEL": "info",
}
"""Nothing is refused: what is measured is how fast all of it is answered."""


class BenchmarkError(RuntimeError):
    """What was to be measured did not run; one line."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running service.

    Attributes:
        port: of the gateway.
        triton: `host:port` of its Triton.
        ready_s: from the start of the process to its readiness.
        pid: of the gateway, which also watches Triton.
    """

    port: int
    triton: str
    ready_s: float
    pid: int

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Triton alone: the gateway stands still, and with it the readiness inferences, a twentieth of a server's time.

        Only where nothing asks the gateway.
        """
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def serving(repository: Path, settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    """`depthlens serve` on a free port, without a cache unless `settings` (environment variables) say otherwise.

    Raises:
        BenchmarkError: it does not start.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEPTHLENS_")}
    environment = kept | _UNBOUNDED | {"DEPTHLENS_CACHE_BYTES": "0"} | dict(settings or {})
    environment["DEPTHLENS_MODEL_REPOSITORY"] = str(repository.resolve())
    command = [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", "0"]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
            try:
                assert process.stdout is not None
                first = process.stdout.readline().decode()
                ready_s = time.perf_counter() - start
                log.seek(0)
                said = log.read().decode(errors="replace")
                if "ready" not in first:
                    raise BenchmarkError(f"the service did not start: {(said.strip().splitlines() or [''])[-1]}")
                triton = said.split("tritonserver is ready on ")[1].split()[0]
                yield Served(int(first.rsplit(":", 1)[1]), triton, ready_s, process.pid)
            finally:
                process.terminate()
                process.communicate(timeout=60)


class Caller:
    """One caller on one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)

    def post(self, path: str, body: bytes) -> tuple[bytes, Message]:
        """The answer's body and headers.

        Raises:
            BenchmarkError: it is not 200.
        """
        self._connection.request("POST", path, body, {"Content-Type": "image/jpeg"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"POST {path} answered {answer.status}: {content[:300]!r}")
        return content, answer.headers

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def stages_ms(headers: Message) -> dict[str, float]:
    """Milliseconds by stage, as `Server-Timing` has them."""
    entries = (each.strip().split(";dur=") for each in str(headers["Server-Timing"]).split(","))
    return {name: float(value) for name, value in entries}


def wait_for_model(port: int, model: str) -> None:
    """Until a model that is loaded after the start answers.

    Raises:
        BenchmarkError: it did not within five minutes.
    """
    from service.benchmark.pictures import jpeg, photo

    body = jpeg(photo(64, 64))
    ends_at = time.monotonic() + _READY_TIMEOUT_S
    caller = Caller(port)
    while True:
        try:
            caller.post(f"/depth?model={model}&size=native&format=npy", body)
            caller.close()
            return
        except BenchmarkError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.2)


def distinct(body: bytes) -> Iterator[bytes]:
    """The same JPEG without end, each time with another comment, so that no cache knows it."""
    for number in itertools.count():
        comment = f"{os.getpid()}-{number}".encode()
        yield body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:]


@dataclass(frozen=True, slots=True)
class Burst:
    """What callers in closed loop saw: answers a second, and the median of an answer in milliseconds."""

    rate: float
    median_ms: float


async def burst(jobs: list[Callable[[], Awaitable[object]]], seconds: float) -> Burst:
    """Each job again as soon as it has ended, until the time is up; those under way then count in full.

    One call of each comes before, uncounted.
    """
    await asyncio.gather(*(job() for job in jobs))
    times: list[float] = []
    start = time.perf_counter()

    async def repeat(job: Callable[[], Awaitable[object]]) -> None:
        while (begun := time.perf_counter()) < start + seconds:
            await job()
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(repeat(job) for job in jobs))
    elapsed = time.perf_counter() - start
    return Burst(len(times) / elapsed, sorted(times)[len(times) // 2] * 1000)


class Connection:
    """One of many callers in one event loop: HTTP/1.1 on a kept connection, for answers with a length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        """A new connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))

    async def post(self, path: str, body: bytes) -> bytes:
        """The answer's body.

        Raises:
            BenchmarkError: it is not 200.
        """
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        content = await self._reader.readexactly(int(answer.split("content-length:")[1].split("\r\n")[0]))
        if " 200 " not in answer.split("\r\n")[0]:
            raise BenchmarkError(f"POST {path} answered {answer.splitlines()[0]}: {content[:300]!r}")
        return content

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def load(port: int, path: str, body: bytes, *, callers: int, seconds: float) -> Burst:
    """So many callers in closed loop, each on its own connection."""
    connections = [await Connection.to(port) for _ in range(callers)]
    try:

        def job(connection: Connection) -> Callable[[], Awaitable[object]]:
            return lambda: connection.post(path, body)

        return await burst([job(connection) for connection in connections], seconds)
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
