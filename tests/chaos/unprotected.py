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

    from service import inference
    from service.contract import MODELS
    from service.routes import depth, focus, segmentation

    def named(name, default, task):  # type: ignore[no-untyped-def]
        return replace(MODELS["focus_on_depth"], name=default if name is None else name)

    depth.find_model = focus.find_model = segmentation.find_model = named
    inference._contract_entry = lambda name: named(name, name, None)


@without("leak")
def _leak() -> None:
    """Nothing is removed: every request leaves 32 kB behind, which the judge of long runs has to notice."""
    from service.middleware import RequestMiddleware

    handle, kept = RequestMiddleware.__call__, []

    async def leaking(self, scope, receive, send):  # type: ignore[no-untyped-def]
        kept.append(b"x" * 32_768)
        await handle(self, scope, receive, send)

    RequestMiddleware.__call__ = leaking  # type: ignore[method-assign]


@without("admission")
def _admission() -> None:
    """Everything is worked on at once, as in a server without a bound."""
    from service.admission import Admission

    bounded = Admission.__init__
    Admission.__init__ = lambda self, places, *rest: bounded(self, 10**6, *rest)  # type: ignore[method-assign]


@without("wait-bound")
def _wait_bound() -> None:
    """Requests wait as long as their deadlines allow."""
    from service.admission import Admission

    bounded = Admission.__init__

    def patient(self, places, waiting, wait_s, metrics):  # type: ignore[no-untyped-def]
        bounded(self, places, waiting, 1e6, metrics)

    Admission.__init__ = patient  # type: ignore[method-assign]


@without("closed-labels")
def _closed_labels() -> None:
    """Metrics are labelled, and lines written, with what the client sent."""
    import logging

    from service import logs
    from service.middleware import RequestMiddleware

    def record(self, scope, context, status, seconds):  # type: ignore[no-untyped-def]
        self._metrics.requests.labels(scope["path"], str(status), context.problem_code).inc()
        logging.getLogger("depthlens.access").info("%s %s %s", scope["method"], scope["path"], status)

    RequestMiddleware._record = record  # type: ignore[method-assign]
    logs.SafeFormatter = logging.Formatter  # type: ignore[assignment, misc]


@without("fair-share")
def _fair_share() -> None:
    """One queue for all, first come first served."""
    from service.clients import Clients

    identify = Clients.identify
    Clients.identify = lambda self, connection: identify(self, connection) and "all"  # type: ignore[method-assign]


@without("silent-errors")
def _silent_errors() -> None:
    """An error is answered with its own text, as Triton, KServe and many others do."""
    from service import inference
    from service.errors import ModelFailed

    inference.translate = lambda status, text, model: ModelFailed(f"{status}: {text}")


@without("edge")
def _edge() -> None:
    """uvicorn's h11 protocol as it is: no deadline for heads, bodies and readers, no bound of connections."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from service import server

    server.GuardedProtocol = lambda shared, **arguments: H11Protocol(**arguments)  # type: ignore[assignment,misc]


@without("edge-and-h11")
def _edge_and_h11() -> None:
    """uvicorn's faster protocol, with httptools: heads of any size."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from service import server

    server.GuardedProtocol = lambda shared, **arguments: HttpToolsProtocol(**arguments)  # type: ignore[assignment,misc]


@without("upload-bounds")
def _upload_bounds() -> None:
    """Bodies are read to their end, and forms taken as Starlette parses them."""
    from starlette.datastructures import UploadFile

    from service import gateway, upload

    async def read_parts(request, max_bytes, share, maps=()):  # type: ignore[no-untyped-def]
        if not request.headers.get("content-type", "").startswith("multipart/"):
            return {"image": await request.body()}
        form = await request.form()
        return {name: await file.read() for name, file in form.items() if isinstance(file, UploadFile)}

    gateway.read_parts = upload.read_parts = read_parts


@without("encoding-refused")
def _encoding_refused() -> None:
    """Compressed bodies are inflated, as the usual middlewares for it do."""
    import zlib

    from service import gateway, upload

    async def read_parts(request, max_bytes, share, maps=()):  # type: ignore[no-untyped-def]
        body = await request.body()
        return {"image": zlib.decompress(body, 47)}

    gateway.read_parts = upload.read_parts = read_parts


@without("uploads-in-memory")
def _uploads_in_memory() -> None:
    """Parts of a form above 1 MB go to a temporary file, as Starlette has it."""
    from starlette.formparsers import MultiPartParser

    from service import upload

    upload._InMemoryParser.spool_max_size = MultiPartParser.spool_max_size


@without("header-limits")
def _header_limits() -> None:
    """Whatever Pillow opens is decoded, without limits of its own, as OpenCV does."""
    from PIL import PngImagePlugin

    from service.imaging import codec, header
    from service.imaging.formats import sniff
    from service.imaging.structure import Structure

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**40
    codec.survey = header.survey = lambda data, limits: Structure(sniff(data), ordinary=True)
    header.check_size = lambda *size: None


@without("killable-decoding")
def _killable_decoding() -> None:
    """Every file that is let in is decoded in a thread."""
    from dataclasses import replace

    from service.imaging import codec

    survey = codec.survey
    codec.survey = lambda data, limits: replace(survey(data, limits), ordinary=True)


@without("allowlist")
def _allowlist() -> None:
    """Pillow tries every format it has."""
    import io

    from PIL import Image, ImageFile

    from service.imaging import codec, decoding, header
    from service.imaging.structure import Structure

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    codec.survey = header.survey = lambda data, limits: Structure("png", ordinary=True)
    header.open_lazily = decoding.open_lazily = lambda data, name: Image.open(io.BytesIO(data))


@without("orientation")
def _orientation() -> None:
    """Pixels are taken as they are stored."""
    from service.imaging import header

    header.stored_orientation = lambda image: 1


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


@without("canary")
def _canary() -> None:
    """Ready as soon as it is up; nobody asks the model."""
    import asyncio

    from service.canary import Canary, CanaryState, Reason

    async def believe(self):  # type: ignore[no-untyped-def]
        self.state = CanaryState(True, Reason.OK, 0.0)
        await asyncio.Event().wait()

    Canary.run = believe  # type: ignore[method-assign]


@without("error-mapping")
def _error_mapping() -> None:
    """What Triton says is an exception like any other."""
    from service import inference

    inference.translate = lambda status, text, model: RuntimeError(text)


@without("retry")
def _retry() -> None:
    """What a server lost is lost."""
    from service.replicas import Replicas

    choose = Replicas._least_busy
    Replicas._least_busy = lambda self, model, but=None: None if but else choose(self, model)  # type: ignore


@without("own-readiness")
def _own_readiness() -> None:
    """Ready when all models are, as Triton's own readiness."""
    from service.gateway import Gateway

    Gateway.not_ready_because = property(  # type: ignore[assignment]
        lambda self: next((state for state in self.model_states().values() if state != "ok"), None)
    )


@without("finite")
def _finite() -> None:
    """What the model answers is taken as it is."""
    from service import inference

    inference._output = lambda tensor, result, model: result.as_numpy(tensor.name)[0]


@without("healing")
def _healing() -> None:
    """A model whose process died stays dead, as in Triton."""
    from service.embedded.supervisor import Supervisor

    async def leave(self, model, error):  # type: ignore[no-untyped-def]
        pass

    Supervisor._heal = leave  # type: ignore[method-assign]


@without("keepalive")
def _keepalive() -> None:
    """A connection is good until TCP says otherwise."""
    from service import inference

    inference.CHANNEL_ARGUMENTS = tuple(pair for pair in inference.CHANNEL_ARGUMENTS if "keepalive" not in pair[0])


@without("lookups")
def _lookups() -> None:
    """A name is looked up once."""
    from service import app, replicas

    app.RESOLVE_PERIOD_S = replicas._UNREADY_RESOLVE_PERIOD_S = 1e6


@without("monotonic")
def _monotonic() -> None:
    """Deadlines are times of day."""
    import time
    from types import SimpleNamespace

    from service import context

    context.time = SimpleNamespace(monotonic=time.time, perf_counter=time.perf_counter)  # type: ignore[assignment]


@without("drain")
def _drain() -> None:
    """SIGTERM ends the process."""
    import os

    from service.server import GatewayServer

    GatewayServer.handle_exit = lambda self, sig, frame: os._exit(0)  # type: ignore[method-assign]


@without("rollout")
def _rollout() -> None:
    """A version that is loaded serves, as in Triton."""
    from service.inference import only_versions
    from service.rollout import Rollout

    async def replace(self, model, version):  # type: ignore[no-untyped-def]
        for server in self._servers():
            before = (await server.serving(model))[0]
            await server.load(model, only_versions(await server.config(model), version))
            server.choose(model, version)
        return before

    Rollout._replace = replace  # type: ignore[method-assign]


def main() -> int:
    """Remove the protection named first, then run the service with the rest of the arguments."""
    name, *arguments = sys.argv[1:]
    UNPROTECTED[name]()
    from service.__main__ import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
