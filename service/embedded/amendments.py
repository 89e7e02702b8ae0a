"""What is changed in a launch's own copies of the wheel's files: two faults of Triton 2.51 that no setting cures.

The wheel is the last of its kind and carries that version; newer servers have the first fault mended, and a build in
which these bytes do not occur just once is run as it is.
"""

import logging
import os
from pathlib import Path

logger = logging.getLogger("depthlens.triton")

_TEMPORARY = b"/tmp/python_env_"  # nosec B108  # sixteen bytes, which XXXXXX follows in the code
_BESIDE = b"../environments_"
"""As long, and relative to where the server is started: its launch's working directory has a folder to start in."""

_UNLESS_NOTIFIED = bytes.fromhex("41 80 bd 60 01 00 00 00 0f 84 bb 02 00 00 49 8b 7d 10")
_ALWAYS = bytes.fromhex("41 80 bd 60 01 00 00 00 90 e9 bb 02 00 00 49 8b 7d 10")
"""`cmpb $0, received_notification; je answer` with `nop; jmp answer` in its place."""


def keep_temporary_folder(directory: Path) -> bool:
    """Let the python backend of `directory` make its temporary folder beside the one that the server is started in.

    It makes one at each start, for packed environments, removes it at some orderly ends only, and has its place built
    in: `/tmp` fills with empty folders that say of no server that they are its own. In the launch's copy of the backend
    it lies in the launch's directory, and goes with it.

    Returns:
        False for a build that says it in another way: that is left alone, works, and leaves its folder behind.
    """
    library = directory / "python" / "libtriton_python.so"
    code = library.read_bytes()
    if code.count(_TEMPORARY) != 1:
        return False
    library.write_bytes(code.replace(_TEMPORARY, _BESIDE))
    return True


def survive_cancellations(server: Path, copy: Path) -> Path:
    """The server to start, which does not die when a call is cancelled at the moment its answer is there.

    A cancelled call has two events, the network's notice and the answer's end, and the second of them frees what
    belongs to the call. In 2.51 an answer that comes between the arrival of the notice and its handling adds a third
    (`ModelInferHandler::InferResponseComplete` sees the flag, which is set outside of the call's lock, and queues the
    call once more): what was freed is used, tritonserver ends by a segmentation fault, and every request in it is lost
    (server issues 7368 and 8034, repaired in 2025 by pull request 8078). One in some hundred clients that leave meets
    that moment. Here an answer is sent whether or not its caller is still there: gRPC drops it, both events come, and
    the second one frees.

    Args:
        server: the wheel's executable.
        copy: where the changed one goes.

    Returns:
        `copy`, or `server` where the code is another or there is no room for 20 MB: any server is better than none.
    """
    code = server.read_bytes()
    if code.count(_UNLESS_NOTIFIED) != 1:
        return server
    try:
        with open(copy, "xb", opener=lambda path, flags: os.open(path, flags, 0o700)) as file:
            file.write(code.replace(_UNLESS_NOTIFIED, _ALWAYS))
    except OSError as error:
        logger.warning("tritonserver is started as it is, and may die of a cancelled call: %s", error.strerror)
        copy.unlink(missing_ok=True)
        return server
    return copy
