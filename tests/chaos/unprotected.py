"""`python -m tests.chaos.unprotected NAME serve ...`: the service without one protection, as a stock system is.

Each function below is a NAME: it replaces one protection by what a service without it does, in a few lines, and only
that one; then the service's own `main` runs. The negative control of a row is started this way, and must fail.
"""

import sys
from collections.abc import Callable

Removal = Callable[[], None]

UNPROTECTED: dict[str, Removal] = {}


def without(name: str) -> Callable[[Removal], Removal]:
    """Register what removes the protection called `name`."""

    def register(remove: Removal) -> Removal:
        assert name not in UNPROTECTED, f"{name} is there twice"
        UNPROTECTED[name] = remove
        return remove

    return register


@without("cancellation")
def _cancellation() -> None:
    """The handler runs to its end, whoever has left, as in any FastAPI service."""
    from service import gateway

    async def to_the_end(request: object, work: Callable[[], object]) -> object:
        return await work()  # type: ignore[misc]

    gateway.until_left = to_the_end  # type: ignore[assignment]


@without("upload-accounts")
def _upload_accounts() -> None:
    """What an upload held is given back only when the request ends well."""
    from contextlib import contextmanager

    from service.upload import UploadMemory, UploadShare

    @contextmanager
    def share(self):  # type: ignore[no-untyped-def]
        held = UploadShare(self)
        yield held
        self.used_bytes -= held.held_bytes

    UploadMemory.share = share  # type: ignore[method-assign]


def main() -> int:
    """Remove the protection named first, then run the service with the rest of the arguments."""
    name, *arguments = sys.argv[1:]
    UNPROTECTED[name]()
    from service.__main__ import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
