"""What requests may say and leave behind.

Methods of typed classes are replaced by short untyped ones: hence the `type: ignore` of this module.
"""

from collections.abc import Callable

from .registry import without


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
    def share(self, client):  # type: ignore[no-untyped-def]
        held = UploadShare(self, client)
        yield held
        self.count(-held.held_bytes, client)

    UploadMemory.share = share  # type: ignore[method-assign]


@without("strict-numbers")
def _strict_numbers() -> None:
    """Numbers are read as Python and pydantic read them."""
    from service import gateway, schemas

    def stock(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    schemas.parse_decimal = gateway.parse_decimal = stock


@without("ranges")
def _ranges() -> None:
    """A click is taken wherever it is."""
    from service.imaging import geometry

    geometry.check_inside = lambda *place, **named: None  # type: ignore[assignment]


@without("known-models")
def _known_models() -> None:
    """Any name is passed on to Triton."""
    from dataclasses import replace

    from service import gateway, inference
    from service.contract import MODELS

    async def named(client, deadline, name, default, task):  # type: ignore[no-untyped-def]
        return replace(MODELS["focus_on_depth"], name=default if name is None else name)

    async def spec(self, model):  # type: ignore[no-untyped-def]
        return await named(None, None, model, model, None)

    gateway.find_model = named
    inference.TritonClient.spec = spec  # type: ignore[method-assign]


@without("leak")
def _leak() -> None:
    """Nothing is removed: every request leaves 32 kB behind, which the judge of long runs has to notice."""
    from service.middleware import RequestMiddleware

    handle, kept = RequestMiddleware.__call__, []

    async def leaking(self, scope, receive, send):  # type: ignore[no-untyped-def]
        kept.append(b"x" * 32_768)
        await handle(self, scope, receive, send)

    RequestMiddleware.__call__ = leaking  # type: ignore[method-assign]


@without("silent-errors")
def _silent_errors() -> None:
    """An error is answered with its own text, as Triton, KServe and many others do."""
    from service import inference
    from service.errors import ModelFailed

    inference.translate = lambda status, text, model: ModelFailed(f"{status}: {text}")


@without("uploads-in-memory")
def _uploads_in_memory() -> None:
    """Parts of a form above 1 MB go to a temporary file, as Starlette has it."""
    from starlette.formparsers import MultiPartParser

    from service import upload

    upload._InMemoryParser.spool_max_size = MultiPartParser.spool_max_size


@without("anonymous-memory")
def _anonymous_memory() -> None:
    """Pixels are handed over in a file in `/dev/shm`, as `multiprocessing.shared_memory` does."""
    import os
    import tempfile

    from service.decoding import memory

    def share(data: bytes | memoryview) -> int:
        descriptor, path = tempfile.mkstemp(dir="/dev/shm")
        os.unlink(path)
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        return descriptor

    memory.share = share
    memory._SEALS = 0  # type: ignore[misc]


@without("reserved-memory")
def _reserved_memory() -> None:
    """The models' shared memory is Triton's default of 1 MiB, and grows by need."""
    from dataclasses import replace

    from service.embedded import process

    command = process._command
    process._command = lambda binary, settings, *rest: command(binary, replace(settings, shm_bytes=2**20), *rest)
