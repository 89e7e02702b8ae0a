"""The FastAPI application: wires the parts together, and holds no logic of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import __version__
from service.addresses import parse_list, resolve
from service.admission import Admission
from service.cache import ByteCache
from service.clients import Clients, Keys, RateLimit
from service.decoding.workers import DecodeWorkers
from service.door import Door
from service.errors import DepthlensError
from service.gateway import EmbeddedServer, Gateway
from service.imaging.codec import Limits
from service.imaging.errors import ImageError
from service.inference import DepthClient, TritonClient
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.pipeline import Pipeline
from service.problems import handle
from service.replicas import RESOLVE_PERIOD_S, Replicas
from service.rollout import Rollout
from service.routes import admin, analyze, depth, focus, frames, health, models, page, segmentation, stereo
from service.routes.lock import PhotoRoute
from service.scenes import Scenes
from service.settings import Settings
from service.streams import Streams
from service.tracing import Tracer
from service.triton_admin import metadata, read
from service.upload import UploadMemory

_MODULES = (depth, segmentation, focus, analyze, stereo, models, health)

_DESCRIPTION = """Depth maps, person mattes and refocused photos.

Coordinates and results are in the displayed orientation (EXIF applied). Errors are RFC 9457 problem details with a
stable `code`.

Videos go through a WebSocket, `/frames?task=depth|segmentation|focus|stereo`, which OpenAPI cannot describe: encoded
frames in, results out in order, with one scale over the stream. Its messages are in the project's `docs/streams.md`."""


def create_app(
    settings: Settings,
    client: DepthClient | None = None,
    embedded: EmbeddedServer | None = None,
    connect: Callable[[str], DepthClient] | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The gateway application.

    Args:
        settings: every knob.
        client: where inferences go; by default the Triton servers at `settings.triton_url`.
        embedded: the Triton that this process runs itself, if it does.
        connect: makes the client of one Triton's address, by default a `TritonClient`.
        tracer: sends spans of every request; closed with the application.

    Raises:
        ValueError: neither a client nor a Triton address is given.
    """
    gateway = _wire(settings, _replicas(settings, client, connect or _connection(settings)), embedded)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(gateway.client.watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await gateway.pipeline.close()
            await gateway.client.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="Depthlens",
        redirect_slashes=False,  # a redirected POST loses its body without a word
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `service.tracing` and `service.metrics` do it
    )
    gateway.tracer = tracer
    app.state.gateway = gateway
    routes = [route for module in _MODULES for route in module.router.routes]
    app.state.door = Door(gateway, routes)
    gateway.metrics.know_routes(route.path for route in routes if isinstance(route, PhotoRoute))
    app.add_middleware(RequestMiddleware, metrics=gateway.metrics, tracer=tracer)
    for kind in (DepthlensError, ImageError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    app.router.routes += routes  # including their routers would match each of them twice, for every request
    app.include_router(frames.router)
    if settings.admin_key_hashes:
        app.include_router(admin.router)
    app.add_api_websocket_route("/{path:path}", frames.no_such_stream)
    app.include_router(page.router)
    return app


def _connection(settings: Settings) -> Callable[[str], TritonClient]:
    if settings.triton_admin is not None:
        return partial(TritonClient, admin=metadata(settings.triton_admin.get_secret_value()))
    path = settings.triton_admin_file
    # Read for each server anew: the first of them may make it after this process started.
    return TritonClient if path is None else lambda address: TritonClient(address, admin=read(path))


def _replicas(settings: Settings, client: DepthClient | None, connect: Callable[[str], DepthClient]) -> Replicas:
    models = (settings.depth_model, settings.segmentation_model, settings.focus_model)
    if client is not None:

        async def the_one() -> tuple[str, ...]:
            return ("given",)

        return Replicas(the_one, lambda _: client, models, canary_period_s=settings.canary_period_s)
    if settings.triton_url is None:
        raise ValueError("No Triton address: set DEPTHLENS_TRITON_URL, or start with `depthlens serve`.")
    entries = parse_list(settings.triton_url)
    return Replicas(
        partial(resolve, entries),
        connect,
        models,
        canary_period_s=settings.canary_period_s,
        resolve_period_s=None if all(entry.literal for entry in entries) else RESOLVE_PERIOD_S,
    )


def _wire(settings: Settings, client: Replicas, embedded: EmbeddedServer | None) -> Gateway:
    metrics = Metrics()
    metrics.watch_replicas(client)
    if embedded is not None:
        metrics.watch_restarts(embedded)
    cache = ByteCache(settings.cache_bytes, settings.cache_age_s, metrics)
    pipeline = Pipeline(
        client,
        cache,
        limits=Limits(max_pixels=settings.max_pixels, max_side=settings.max_side_px),
        worker_threads=settings.worker_threads,
        decoders=DecodeWorkers(
            count=settings.decode_workers,
            memory_bytes=settings.decode_memory_bytes,
            cpu_s=settings.decode_cpu_s,
            metrics=metrics,
        ),
    )
    client.on_change = pipeline.forget
    uploads = UploadMemory(settings.max_upload_bytes)
    metrics.upload_bytes.set_function(lambda: uploads.used_bytes)
    metrics.know_limits(
        inflight=settings.max_inflight, waiting=settings.max_waiting, upload_bytes=settings.max_upload_bytes
    )
    return Gateway(
        settings=settings,
        client=client,
        metrics=metrics,
        admission=Admission(settings.max_inflight, settings.max_waiting, settings.max_wait_s, metrics),
        clients=Clients(
            Keys(settings.api_key_hashes),
            RateLimit(settings.rate_limit_per_s) if settings.rate_limit_per_s else None,
            metrics,
        ),
        pipeline=pipeline,
        rollout=Rollout(client),
        uploads=uploads,
        scenes=Scenes(cache, settings.scene_age_s),
        streams=Streams(settings.max_streams, metrics),
        embedded=embedded,
    )
