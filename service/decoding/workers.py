"""The worker processes that decode what is not ordinary: which is free, what their ends mean, and their successors."""

import asyncio
import errno
import json
import logging
import os
import signal
from dataclasses import asdict
from typing import Any, Final

from service.decoding import memory
from service.decoding.process import Answer, Nursery, Worker, WorkerEnded
from service.errors import DecoderUnavailable, UndecodableImage
from service.imaging import errors as imaging_errors
from service.imaging.decoding import Photo
from service.imaging.header import ImageHeader
from service.imaging.structure import Limits
from service.metrics import Metrics

logger = logging.getLogger("depthlens.decoding")

_COPY_BESIDE_BYTES: Final = 256 * 1024
"""Files above are copied into shared memory by a thread, so that the event loop never stops for more than 0.1 ms."""
_GRACE_S: Final = 0.1
"""Time for a job that nobody waits for any more to end by itself: a new process costs a few milliseconds, too."""
_LONGEST_PAUSE_S: Final = 5.0
_KILL_TIMEOUT_S: Final = 2.0
_TIME: Final = {-signal.SIGPROF}
_CRASH: Final = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, -signal.SIGSYS}
_ERRORS: Final = {
    name: kind
    for name, kind in vars(imaging_errors).items()
    if isinstance(kind, type) and issubclass(kind, imaging_errors.ImageError)
}


class DecodeWorkers:
    """`count` processes, each started again when it ends.

    Args:
        count: how many files are decoded at once.
        memory_bytes: what decoding one may take; beyond it the file is refused.
        cpu_s: processor seconds one file may take; beyond it the worker is killed, and the file refused.
        metrics: counts ends by reason.
    """

    def __init__(self, *, count: int, memory_bytes: int, cpu_s: float, metrics: Metrics) -> None:
        self._count = count
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._metrics = metrics
        self._idle: asyncio.LifoQueue[Worker] | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._leavings: set[asyncio.Task[None]] = set()
        self._nursery: Nursery | None = None
        self._workers: set[Worker] = set()
        self._failed_starts = 0

    def start(self) -> None:
        """Start the processes; does not wait until they are ready. Without it they are started by the first job."""
        if self._idle is None:
            self._idle = asyncio.LifoQueue()
            self._keepers = [asyncio.create_task(self._keep(self._idle)) for _ in range(self._count)]

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes there are now."""
        return sorted(worker.pid for worker in self._workers if worker.started.done())

    async def close(self) -> None:
        """End every process."""
        tasks = [*self._keepers, *self._leavings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._nursery is not None:
            self._nursery.end()
            await self._nursery.wait()
        await asyncio.gather(*(worker.ended for worker in self._workers))
        self._workers.clear()
        self._keepers, self._idle, self._nursery = [], None, None

    async def inspect(self, data: bytes, limits: Limits) -> ImageHeader:
        """As `codec.inspect`.

        Raises:
            ImageError: as there.
            UndecodableImage, DecoderUnavailable: as `decode`.
        """
        answer = await self._run({"do": "inspect", "limits": asdict(limits)}, data)
        with_header = _said(answer)
        answer.close()
        return ImageHeader(**with_header["header"])

    async def decode(self, data: bytes, header: ImageHeader, *, min_side: int | None = None) -> Photo:
        """As `codec.decode`; a caller who gives up leaves the job, and what it needs, behind for at most 0.1 s.

        Raises:
            ImageError: as there.
            UndecodableImage: the file took more time than allowed, or crashed its decoder.
            DecoderUnavailable: the process was killed from outside, or none can be started.
        """
        answer = await self._run({"do": "decode", "header": asdict(header), "min_side": min_side}, data)
        try:
            said = _said(answer)
            height, width, channels = said["shape"]
            if channels != 3 or height * width > header.height * header.width:
                raise ValueError(f"{said['shape']} of a photo of {header.size}")
            pixels = memory.view(answer.descriptors[0], height * width * 3).reshape(height, width, 3)
        finally:
            answer.close()
        exif = answer.packet.partition(b"\n")[2] if said["exif"] else None
        return Photo(pixels=pixels, header=header, exif=exif, scale=said["scale"])

    async def _run(self, job: dict[str, Any], data: bytes) -> Answer:
        packet = json.dumps(job).encode()
        try:
            descriptor = (
                memory.share(data) if len(data) <= _COPY_BESIDE_BYTES else await asyncio.to_thread(memory.share, data)
            )
        except OSError as error:
            raise _no_memory(error) from error
        try:
            while True:
                worker = await self._free()
                try:
                    answer = await worker.ask(packet, descriptor)
                except BrokenPipeError:
                    continue  # it ended while it had nothing to do
                except WorkerEnded as end:
                    raise self._verdict(end.status) from None
                except asyncio.CancelledError:
                    self._leave(worker)
                    raise
                self._put_back(worker)
                return answer
        finally:
            os.close(descriptor)

    async def _free(self) -> Worker:
        self.start()
        assert self._idle is not None
        if self._idle.empty() and self._failed_starts >= self._count:
            raise DecoderUnavailable("No process to decode this file with can be started. Try again later.")
        return await self._idle.get()

    def _put_back(self, worker: Worker) -> None:
        if self._idle is not None:
            self._idle.put_nowait(worker)

    def _verdict(self, status: int) -> Exception:
        if status in _TIME:
            return UndecodableImage(
                f"Decoding this picture takes more than {self._cpu_s:g} s of processor time; save it anew, or smaller.",
                code="too_costly_image",
                field="image",
                limit=self._cpu_s,
            )
        if status in _CRASH or status > 0:
            return UndecodableImage("This picture crashed its decoder; save it anew.", field="image")
        return DecoderUnavailable("The process that was decoding this file was ended. Try again.")

    def _leave(self, worker: Worker) -> None:
        """Nobody waits for its job any more: let it end the job soon, or be replaced."""

        async def see() -> None:
            if await worker.answered(_GRACE_S):
                self._put_back(worker)
            elif worker.alive:
                worker.kill()
                await asyncio.wait([worker.ended], timeout=_KILL_TIMEOUT_S)
                if not worker.ended.done() and self._nursery is not None:
                    self._nursery.end()  # which kills its workers itself, and does not

        task = asyncio.create_task(see())
        self._leavings.add(task)
        task.add_done_callback(self._leavings.discard)

    async def _keep(self, idle: asyncio.LifoQueue[Worker]) -> None:
        """Have one process running for as long as the service is."""
        pause_s = 0.05
        while True:
            try:
                worker = self._fork()
            except OSError as error:
                logger.error("no decoding process can be started: %s", error.strerror)
                ready = False
            else:
                self._workers.add(worker)
                ready = await asyncio.shield(worker.started)
                if ready:
                    self._failed_starts = 0
                    pause_s = 0.05
                    idle.put_nowait(worker)
                status = await asyncio.shield(worker.ended)
                self._workers.discard(worker)
                reason = _reason(status) if ready else "start"
                self._metrics.decoder_ends.labels(reason).inc()
                logger.warning("decoding process %d ended with status %d (%s)", worker.pid, status, reason)
            if not ready:
                self._failed_starts += 1
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _fork(self) -> Worker:
        if self._nursery is None or not self._nursery.alive:
            self._nursery = Nursery(memory_bytes=self._memory_bytes, cpu_s=self._cpu_s)
        return self._nursery.fork()


def _reason(status: int) -> str:
    return "time" if status in _TIME else "crash" if status in _CRASH or status > 0 else "killed"


def _no_memory(error: OSError) -> DecoderUnavailable:
    what = "memory" if error.errno in (errno.ENOMEM, errno.ENOSPC) else "descriptors"
    return DecoderUnavailable(f"There are no {what} left to decode this file with. Try again later.")


def _said(answer: Answer) -> dict[str, Any]:
    """The JSON part of an answer; raises the ImageError it reports."""
    said: dict[str, Any] = json.loads(answer.packet.partition(b"\n")[0])
    if (error := said.get("error")) is None:
        return said
    answer.close()
    kind = _ERRORS[error.pop("kind")]
    raise kind(error.pop("message"), **error)
