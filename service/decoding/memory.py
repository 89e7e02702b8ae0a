"""Bytes between two processes in anonymous shared memory (memfd).

Nothing of it is in `/dev/shm`, whose size does not matter then, and nothing is left behind: it is gone with the last
descriptor or mapping, however their holders end. What is handed over is sealed, so that the other side can neither
change nor shorten it under whoever reads it (a shortened mapping would end the reader with SIGBUS).
"""

import ctypes
import fcntl
import mmap
import os
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def share(data: bytes | memoryview) -> int:
    """A descriptor of sealed memory that holds a copy of `data`; the caller closes it.

    Raises:
        OSError: no memory, or no descriptor to be had.
    """
    descriptor = os.memfd_create("depthlens", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read(descriptor: int) -> bytes:
    """A copy of all that `share` put there."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def view(descriptor: int, size_bytes: int) -> NDArray[np.uint8]:
    """The shared bytes themselves, uint8 (size_bytes,), read-only; the descriptor may be closed.

    Raises:
        ValueError: not sealed, or of another size.
        OSError: no address space.
    """
    if os.fstat(descriptor).st_size != size_bytes or size_bytes < 1:
        raise ValueError(f"not {size_bytes} bytes")
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError("not sealed")
    # Not mmap.mmap: it keeps a descriptor open for as long as the array lives, and caches hold many.
    address = _libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED | mmap.MAP_POPULATE, descriptor, 0)
    if address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size_bytes).atexit = False
    array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
    array.flags.writeable = False
    return array
