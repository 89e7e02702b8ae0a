"""The FastAPI application: wires the parts together, and holds no logic of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from service import __version__
from service.admission import Admission
from service.cache import ByteCache
from service.canary import Canary
from service.clients import Clients, Keys, RateLimit
from service.errors import DeadlineExceeded, DepthlensError
from service.gateway import EmbeddedServer, Gateway
from service.imaging.codec import Limits
from service.imaging.errors import ImageError
from service.inference import DepthClient, TritonClient
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.pipeline import Pipeline
from service.problems import handle
from service.routes import depth, focus, health, models, segmentation
from service.scenes import Scenes
from service.settings import Settings
from service.upload import UploadMemory

_DESCRIPTION = """Depth maps, person mattes and refocused photos.

Coordinates and results are in the displayed orientation (EXIF applied). Errors are RFC 9457 problem details with a
stable `code`."""


def create_app(
    settings: Settings, client: DepthClient | None = None, embedded: EmbeddedServer | None = None
) -> FastAPI:
    """The gateway application.

    Args:
        settings: every knob.
        client: where inferences go; by default the Triton server at `settings.triton_url`.
        embedded: the Triton that this process runs itself, if it does.

    Raises:
        ValueError: neither a client nor a Triton address is given.
    """
    if client is None:
        if settings.triton_url is None:
            raise ValueError("No Triton address: set DEPTHLENS_TRITON_URL, or start with `depthlens serve`.")
        client = TritonClient(settings.triton_url)
    gateway = _wire(settings, client, embedded)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(gateway.canary.run())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            gateway.pipeline.close()
            await gateway.client.close()

    app = FastAPI(
        title="Depthlens",
        redirect_slashes=False,  # a redirected POST loses its body without a word
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.gateway = gateway
    app.add_middleware(RequestMiddleware, metrics=gateway.metrics)
    for kind in (DepthlensError, ImageError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    for module in (depth, segmentation, focus, models, health):
        app.include_router(module.router)
    app.add_api_route("/", _documentation, include_in_schema=False)
    return app


async def _documentation() -> RedirectResponse:
    return RedirectResponse("docs")


def _wire(settings: Settings, client: DepthClient, embedded: EmbeddedServer | None) -> Gateway:
    metrics = Metrics()
    if embedded is not None:
        metrics.watch_restarts(embedded)
    cache = ByteCache(settings.cache_bytes, settings.cache_age_s, metrics)
    pipeline = Pipeline(
        client,
        cache,
        limits=Limits(max_pixels=settings.max_pixels, max_side=settings.max_side_px),
        worker_threads=settings.worker_threads,
    )

    async def forget(error: DepthlensError) -> None:
        if not isinstance(error, DeadlineExceeded):  # what comes back may be another version; a slow moment is not
            pipeline.forget()

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
        canary=Canary(client, settings.focus_model, period_s=settings.canary_period_s, on_failure=forget),
        uploads=UploadMemory(settings.max_upload_bytes),
        scenes=Scenes(cache, settings.scene_age_s),
        embedded=embedded,
    )
