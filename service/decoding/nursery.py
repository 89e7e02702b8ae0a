"""The process that workers are forked from; run as `python -m service.decoding.nursery`.

It has imported what decoding needs and never looks at a file, so a worker costs milliseconds and shares its memory. It
has one thread, which is what makes forking safe; the gateway has many. Standard input is its socket to the gateway:

- order `{"fork": n}` with a descriptor: a worker, number n, that serves this socket
- order `{"kill": n}`
- report `{"worker": n, "status": s}`: it has ended, s as of `subprocess`

Workers end with the nursery, and the nursery with the gateway.
"""

import argparse
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from service.decoding import worker

_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Fork, kill and report until the gateway closes its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory-bytes", type=int, required=True, help="for decoding one file")
    parser.add_argument("--cpu-s", type=float, required=True, help="for decoding one file")
    parser.add_argument("--parent", type=int, required=True, help="process with which this one ends")
    options = parser.parse_args()
    worker.end_with(options.parent)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    gateway = socket.socket(fileno=0)
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # so that the descriptor is woken at all
    gc.collect()
    gc.freeze()  # what the workers share is not touched by their collections
    numbers: dict[int, int] = {}
    own = os.getpid()  # known before a fork: a worker that asks later may be an orphan already, and would never end
    while True:
        ready, _, _ = select.select([gateway.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 64)
            _report(gateway, numbers)
        if gateway.fileno() not in ready:
            continue
        packet, descriptors, _, _ = socket.recv_fds(gateway, worker.PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return
        order = json.loads(packet)
        if "kill" in order:
            for pid in [pid for pid, number in numbers.items() if number == order["kill"]]:
                os.kill(pid, signal.SIGKILL)  # not reaped, so the process number is still its own
            continue
        child = _fork()
        if child == 0:
            gateway.close()
            os.close(wakes)
            os.close(wake)
            _be_worker(descriptors[0], options.memory_bytes, options.cpu_s, own)
        os.close(descriptors[0])
        if child is not None:
            numbers[child] = order["fork"]


def _fork() -> int | None:
    """As `os.fork`; None when there is no process to be had."""
    with suppress(OSError):
        return os.fork()
    return None


def _be_worker(descriptor: int, memory_bytes: int, cpu_s: float, parent: int) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=descriptor) as own, suppress(ConnectionError):
            worker.serve(own, memory_bytes=memory_bytes, cpu_s=cpu_s, parent=parent)
        status = 0
    finally:
        os._exit(status)


def _report(gateway: socket.socket, numbers: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            report = {"worker": numbers.pop(pid), "status": os.waitstatus_to_exitcode(status)}
            gateway.send(json.dumps(report).encode())


if __name__ == "__main__":
    with suppress(ConnectionError):  # the gateway is gone
        main()
    sys.exit(0)
