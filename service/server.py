"""Runs the gateway, with the embedded Triton when no other is named, and stops both in order.

On SIGTERM or Ctrl-C: readiness turns 503 and every answer is its connection's last, so that clients go elsewhere; then
the listener closes, requests in flight end, and Triton stops.
"""

import asyncio
import ctypes
import gc
import logging
import socket
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import FrameType
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.connections import Connections
from service.edge import GuardedProtocol
from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.gateway import Gateway
from service.inference import TritonClient
from service.settings import Settings
from service.tracing import Tracer, TracingMissing
from service.websocket import GuardedWebSocket

logger = logging.getLogger("depthlens")

_READY_POLL_S = 0.02

_M_TRIM_THRESHOLD: Final = -1  # glibc's malloc.h
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 16 * 2**20
_MAPPED_BYTES: Final = 8 * 2**20


class GatewayServer(uvicorn.Server):
    """uvicorn's server with a drain before the listener closes."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        gateway.metrics.connections.set_function(lambda: len(self.server_state.connections))
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: not ready any more, and the listener closes after the drain time. Second: close at once."""
        if self._gateway.draining:
            self.should_exit = self.force_exit = True
            return
        self._gateway.draining = True
        self._loop.call_soon_threadsafe(self._close_later)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, and let requests and frames in work end."""
        self._gateway.streams.drain()
        await super().shutdown(sockets)

    def _close_later(self) -> None:
        logger.info("stopping: the listener closes in %g s", self._gateway.settings.drain_s)
        self._loop.call_later(self._gateway.settings.drain_s, self._close)

    def _close(self) -> None:
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 picks a free one.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def make_server(app: FastAPI) -> GatewayServer:
    """The server of an application of `create_app` behind the guarded HTTP edge; needs a running loop."""
    gateway: Gateway = app.state.gateway
    settings = gateway.settings
    shared = Connections(gateway, app.state.door)
    protocol = partial(GuardedProtocol, shared)
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], protocol),  # h11: httptools takes headers of any size
        ws=cast(type[asyncio.Protocol], partial(GuardedWebSocket, shared)),
        ws_max_size=settings.max_frame_bytes,
        ws_per_message_deflate=False,  # what comes and goes is compressed already
        ws_ping_timeout=None,  # pings keep proxies from closing; a client that holds back frames answers them late
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout_s)),
        timeout_keep_alive=75,  # longer than the idle time of common balancers, which reuse connections
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),  # uvicorn's own default believes whatever runs beside it
        forwarded_allow_ips=list(settings.trusted_proxies),
    )
    return GatewayServer(config, gateway)


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until a signal asks to stop.

    Raises:
        BinaryMissingError: the embedded server is not installed.
        TritonStartError: it does not start.
    """
    async with AsyncExitStack() as stack:
        supervisor: Supervisor | None = None
        client: TritonClient | None = None
        if settings.triton_url is None:
            logger.info("starting the embedded Triton on %s", settings.model_repository)
            embedded = EmbeddedSettings(
                settings.model_repository,
                others=True,
                cache=settings.openvino_cache,
                otlp_endpoint=settings.otlp_endpoint,
            )
            supervisor = await stack.enter_async_context(Supervisor(embedded))
            client = TritonClient(supervisor.grpc_url, admin=supervisor.admin)
        app = create_app(settings, client, supervisor, tracer=_tracer(settings.otlp_endpoint))
        server = make_server(app)
        app.state.gateway.pipeline.start()
        _spare_the_collector()
        _keep_freed_memory()
        announcing = asyncio.create_task(_announce(app.state.gateway, listener))
        try:
            await server.serve([listener])
        finally:
            announcing.cancel()


def _spare_the_collector() -> None:
    """Leave alone what is there now and stays as long as the gateway.

    Looking through it for garbage, again and again, was a sixth of the processor time of refusals (perf).
    """
    gc.collect()
    gc.freeze()


def _keep_freed_memory() -> None:
    """Have malloc keep what a request frees for the next one; of large photos it still gives everything back.

    Bodies, tensors and maps of some hundred kilobytes went back to the system and were fetched anew, page by page, with
    every request: 420 page faults, a seventh of the gateway's processor time.
    """
    with suppress(AttributeError):  # another libc has none
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def _tracer(endpoint: str | None) -> Tracer | None:
    """None where nothing is traced; what cannot be is a line in the log, since photos can be answered without."""
    try:
        return Tracer.to(endpoint) if endpoint is not None else None
    except TracingMissing as error:
        logger.error("%s", error)
        return None


async def _announce(gateway: Gateway, listener: socket.socket) -> None:
    """Print the address once the first readiness inference has answered."""
    while gateway.not_ready_because is not None:
        await asyncio.sleep(_READY_POLL_S)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Depthlens is ready: http://{shown}:{port}", flush=True)
