"""What a worker does: looks at and decodes files for the gateway, one at a time.

Its socket to the gateway is the only thing it can reach: no other descriptor, no environment, limits on memory
(address space beyond what it starts with), on the processor time of each job, on files. Exceeding the time ends the
process with SIGPROF; the gateway knows from the status, and gets another. Workers are forked by the `nursery`.

A job is one packet, JSON, with the file as a descriptor of shared memory. The answer is JSON, a line feed and the EXIF
block, with the pixels as a descriptor. Nothing is pickled: what decodes hostile files must not be able to make the
gateway run code.
"""

import ctypes
import json
import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from service.decoding import memory
from service.imaging import errors
from service.imaging.decoding import decode
from service.imaging.header import ImageHeader, inspect
from service.imaging.structure import Limits

PACKET_BYTES: Final = 128 * 1024

_PR_SET_PDEATHSIG = 1
_MAX_DESCRIPTORS = 32
_libc = ctypes.CDLL(None)


def serve(gateway: socket.socket, *, memory_bytes: int, cpu_s: float, parent: int) -> None:
    """Say so when ready, then work until the gateway closes its end.

    Args:
        gateway: a socket that keeps packets apart.
        memory_bytes: what decoding may take beyond what the process has.
        cpu_s: processor seconds of one job.
        parent: process with which this one is to end.

    Raises:
        OSError: the gateway is gone.
    """
    end_with(parent)
    _confine(memory_bytes)
    gateway.send(json.dumps({"pid": os.getpid()}).encode())
    while True:
        packet, descriptors, _, _ = socket.recv_fds(gateway, PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        answer, pixels = _work(packet, descriptors[0])
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.close(descriptors[0])
        socket.send_fds(gateway, [answer], pixels)
        for descriptor in pixels:
            os.close(descriptor)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _confine(memory_bytes: int) -> None:
    with suppress(OSError):  # where memory runs out for all, this process goes, and not the gateway
        Path("/proc/self/oom_score_adj").write_text("1000")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for limit, value in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes),
        (resource.RLIMIT_FSIZE, memory_bytes),  # shared memory counts as a file
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _work(packet: bytes, descriptor: int) -> tuple[bytes, list[int]]:
    try:
        return _do(json.loads(packet), memory.read(descriptor))
    except errors.ImageError as error:
        said = {
            "kind": type(error).__name__,
            "message": str(error),
            "code": error.code,
            "field": error.field,
            "value": error.value,
            "limit": error.limit,
        }
    except (MemoryError, OSError):  # for the file's own bytes, or the copy of the pixels
        said = {"kind": "ImageTooCostly", "message": "Decoding this picture takes more memory than allowed; shrink it."}
    return json.dumps({"error": said}).encode(), []


def _do(job: dict[str, Any], data: bytes) -> tuple[bytes, list[int]]:
    if job["do"] == "inspect":
        return json.dumps({"header": asdict(inspect(data, Limits(**job["limits"])))}).encode(), []
    photo = decode(data, ImageHeader(**job["header"]), min_side=job["min_side"])
    answer = json.dumps({"shape": photo.pixels.shape, "scale": photo.scale, "exif": photo.exif is not None}).encode()
    return answer + b"\n" + (photo.exif or b""), [memory.share(photo.pixels.data)]
