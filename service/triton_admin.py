"""The secret that opens the model control of Triton servers, as a file that servers and gateway share.

One line, `name=secret`: the name of Triton's `--grpc-restricted-protocol` and the secret that calls have to state.
"""

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("depthlens.triton")

ADMIN_NAME = "depthlens"
"""Name of the restricted protocol of the servers that we start ourselves."""


def metadata(text: str) -> tuple[str, str]:
    """Key and value of the gRPC metadata that `name=secret` stands for.

    Raises:
        ValueError: it has another form.
    """
    name, equals, secret = text.strip().partition("=")
    if not (name and equals and secret) or len(text.split()) != 1:
        raise ValueError("not name=secret")
    return f"triton-grpc-protocol-{name}", secret


def read(path: Path) -> tuple[str, str] | None:
    """As `metadata`, of a file; None, with a warning, where there is no such file or it holds something else."""
    try:
        return metadata(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("no key to the model control of Triton in %s: %s", path, error)
        return None


def make_or_read(path: Path | None) -> str:
    """The secret of a server to be started: that of the file, which is made where it is not there.

    A server that starts again finds its own secret there. Where the file can neither be read nor made (a read-only
    folder that holds none), or where there is no path, the secret is a new one that nobody else knows.
    """
    fresh = secrets.token_urlsafe(24)
    if path is None:
        return fresh
    with suppress(OSError):
        # Whole or not there: a gateway may read it at any time.
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            new.touch(mode=0o600)
            new.write_text(f"{ADMIN_NAME}={fresh}\n", encoding="utf-8")
            path.hardlink_to(new)
        finally:
            new.unlink(missing_ok=True)
    found = read(path)
    if found is None or found[0] != metadata(f"{ADMIN_NAME}=any")[0]:
        logger.warning("model control stays closed to everybody else: %s does not hold %s=...", path, ADMIN_NAME)
        return fresh
    return found[1]
