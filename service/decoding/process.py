"""The gateway's handles of the nursery and of its workers: start, one question at a time, end."""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from service.decoding.worker import PACKET_BYTES

_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",  # threads do not survive a fork
    "MALLOC_ARENA_MAX": "2",  # each arena takes 64 MiB of the address space that the limit is on
    # Up to so much stays with a worker between jobs. Given back and fetched anew, page by page, the memory of a photo
    # of 2 megapixels costs more than its decoding: 12 ms and 8.5 ms, measured.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}
_STATUS_TIMEOUT_S: Final = 2.0
"""Until a nursery that does not report the end of a worker counts as ended, too."""
UNKNOWN_STATUS: Final = -int(signal.SIGKILL)


@dataclass(slots=True)
class Answer:
    """What a worker said: its packet, and the descriptor of the pixels, which `close` closes."""

    packet: bytes = b""
    descriptors: list[int] = field(default_factory=list)

    @classmethod
    def receive(cls, source: socket.socket) -> "Answer | None":
        """The next packet, an empty one when the other side is gone, None when there is none yet."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(source, PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError:
            return cls()
        return cls(packet, list(descriptors))

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class WorkerEnded(Exception):
    """The worker ended before it answered; `status` as of `subprocess`: -n when signal n ended it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Nursery:
    """The process that workers come from; made in the event loop that uses it.

    Args:
        memory_bytes: what a worker may take beyond what it starts with.
        cpu_s: processor seconds of one job.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, *, memory_bytes: int, cpu_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._statuses: dict[int, asyncio.Future[int]] = {}
        self._ended: asyncio.Task[int] | None = None
        self.alive = True
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-B", "-m", "service.decoding.nursery"),
                    *("--memory-bytes", str(memory_bytes), "--cpu-s", str(cpu_s), "--parent", str(os.getpid())),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff would write a line about every damaged file
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C reaches the gateway alone
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._read)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._popen.pid

    def fork(self) -> "Worker":
        """Order a worker; it tells when it has started.

        Raises:
            OSError: the nursery is gone, or there is no descriptor to be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = next(self._numbers)
        try:
            if not self.alive:
                raise BrokenPipeError
            socket.send_fds(self._socket, [json.dumps({"fork": number}).encode()], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._statuses[number] = self._loop.create_future()
        return Worker(self, number, ours)

    def kill_worker(self, number: int) -> None:
        """End a worker at once."""
        if self.alive:
            with suppress(OSError):
                self._socket.send(json.dumps({"kill": number}).encode())

    async def status_of(self, number: int) -> int:
        """Exit status of a worker whose socket is closed."""
        status = self._statuses[number]
        await asyncio.wait([status], timeout=_STATUS_TIMEOUT_S)
        if not status.done():
            self.end()
        del self._statuses[number]
        return status.result()

    def end(self) -> None:
        """End the nursery and with it every worker; those tell when."""
        if self.alive:
            self.alive = False
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._popen.kill()
            self._ended = self._loop.create_task(asyncio.to_thread(self._popen.wait))
            for status in self._statuses.values():
                if not status.done():
                    status.set_result(UNKNOWN_STATUS)

    async def wait(self) -> None:
        """After `end`: until it has ended."""
        if self._ended is not None:
            await self._ended

    def _read(self) -> None:
        report = Answer.receive(self._socket)
        if report is None:
            return
        report.close()
        if not report.packet:
            self.end()
            return
        said = json.loads(report.packet)
        status = self._statuses.get(said["worker"])
        if status is not None and not status.done():
            status.set_result(said["status"])


class Worker:
    """A worker process, made by `Nursery.fork`.

    Attributes:
        started: done once it is ready for its first job; True, or False when it ended before.
        ended: done once it has ended, with its exit status.
        pid: its process number, 0 before it has started.
    """

    def __init__(self, nursery: Nursery, number: int, connection: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._nursery = nursery
        self._number = number
        self._socket = connection
        self._socket.setblocking(False)
        self.pid = 0
        self.started: asyncio.Future[bool] = self._loop.create_future()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._answer: asyncio.Future[Answer | int] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._loop.add_reader(self._socket.fileno(), self._read)

    @property
    def alive(self) -> bool:
        """Whether its end has not been noticed yet."""
        return self._reaping is None

    async def ask(self, job: bytes, descriptor: int) -> Answer:
        """Have one job done; whoever gives up waiting must see to `answered` before the next.

        Raises:
            BrokenPipeError: it had ended before; the job was not begun.
            WorkerEnded: it ended with the job.
        """
        if not self.alive:
            raise BrokenPipeError
        self._answer = self._loop.create_future()
        try:
            socket.send_fds(self._socket, [job], [descriptor])
        except ConnectionError as error:
            raise BrokenPipeError from error
        answer = await asyncio.shield(self._answer)
        if isinstance(answer, int):
            raise WorkerEnded(answer)
        return answer

    async def answered(self, within_s: float) -> bool:
        """Wait for an answer nobody wants any more; False when there is none yet, or the worker ended."""
        assert self._answer is not None
        await asyncio.wait([self._answer], timeout=within_s)
        if not self._answer.done():
            return False
        answer = self._answer.result()
        if isinstance(answer, int):
            return False
        answer.close()
        return True

    def kill(self) -> None:
        """End it at once; `ended` tells when."""
        self._nursery.kill_worker(self._number)

    def _read(self) -> None:
        answer = Answer.receive(self._socket)
        if answer is None:
            return
        if not answer.packet:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._reaping = self._loop.create_task(self._reap())
        elif not self.started.done():
            self.pid = int(json.loads(answer.packet)["pid"])
            self.started.set_result(True)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        else:
            answer.close()
            self.kill()  # it speaks without being asked

    async def _reap(self) -> None:
        self.kill()  # without effect on one that is ending; one that has closed its socket is of no use
        status = await self._nursery.status_of(self._number) if self.started.done() else UNKNOWN_STATUS
        if not self.started.done():
            self.started.set_result(False)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)
        self.ended.set_result(status)
