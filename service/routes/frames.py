"""`WS /frames`: a stream of frames, let in or refused here. What is said on it is in `docs/streams.md`."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from service import access
from service.context import Deadline, RequestContext
from service.contract import STEREO, ModelSpec
from service.errors import BadRequest, Draining, ForeignOrigin, ModelUnavailable, UpgradeRequired
from service.gateway import Gateway
from service.matching import NOT_SERVED
from service.problems import of_work, written
from service.stream import FrameStream, StreamEnd, Work
from service.stream_focus import FocusWork
from service.stream_query import StreamQuery, StreamTask, read_query
from service.stream_stereo import StereoWork
from service.stream_work import DepthWork, MatteWork

router = APIRouter(tags=["stream"])

PATH: Final = "/frames"
PROTOCOL: Final = "depthlens"
"""The subprotocol that is taken, where one is offered."""

WORK: Final[dict[StreamTask, Callable[[Gateway, ModelSpec], Work]]] = {
    "depth": DepthWork,
    "segmentation": MatteWork,
    "focus": FocusWork,
    "stereo": StereoWork,
}
"""What is done with frames, by task."""

_CLOSE_S: Final = 1.0  # for the close frame to be written; the edge cuts who does not take it


@router.get(PATH, include_in_schema=False)
async def not_a_stream() -> None:
    """Whoever comes without an upgrade is told."""
    raise UpgradeRequired("This route speaks WebSocket: ws://.../frames?task=depth. See docs/streams.md.")


@router.websocket(PATH)
async def frames(socket: WebSocket) -> None:
    """A stream of frames; see `docs/streams.md`."""
    gateway: Gateway = socket.app.state.gateway
    context = RequestContext.named(socket.headers.get("x-request-id", ""))
    context.deadline = Deadline.after(gateway.settings.request_timeout_s)
    socket.state.context = context
    start = time.perf_counter()
    with ExitStack() as held:
        try:
            query, spec = await _let_in(gateway, socket, context, held)
        except Exception as error:
            await _refuse(gateway, socket, context, error, start)
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(
            subprotocol=PROTOCOL if PROTOCOL in offered else None,
            headers=[(b"x-request-id", context.request_id.encode())],
        )
        access.record(gateway.metrics, context, "GET", PATH, 101, time.perf_counter() - start)
        share = held.enter_context(gateway.uploads.share(context.client))
        offer = query.offer
        about = {"task": query.task, "format": offer.format, "media_type": offer.media_type, "model": spec.name}
        work = WORK[query.task](gateway, spec)
        stream = FrameStream(gateway, socket, query, work, context, share, about)
        try:
            end = await stream.run()
        finally:
            await work.close()
        await _close(socket, end)
    access.ended(context, PATH, end.code, stream.counts, time.perf_counter() - start)


async def _let_in(
    gateway: Gateway, socket: WebSocket, context: RequestContext, held: ExitStack
) -> tuple[StreamQuery, ModelSpec]:
    """Everything that can be said against a stream before it begins; takes its place."""
    context.client = gateway.clients.identify(socket)
    _check_origin(socket, gateway.settings.stream_origins)
    if gateway.draining:
        raise Draining("This gateway is about to stop. Connect again.")
    query = read_query(socket.query_params)
    spec = await _model(gateway, socket, query)
    held.enter_context(gateway.streams.place(context.client))
    return query, spec


async def _model(gateway: Gateway, socket: WebSocket, query: StreamQuery) -> ModelSpec:
    if query.task != "stereo":
        return await gateway.model(socket, query.model, query.task)
    if not await gateway.client.is_ready(STEREO.name):
        raise ModelUnavailable(NOT_SERVED)
    return STEREO


def _check_origin(socket: WebSocket, allowed: tuple[str, ...]) -> None:
    """Refuse pages of other sites: no browser asks a server before a page opens a WebSocket to it."""
    origin = socket.headers.get("origin")
    if origin is None or "*" in allowed or origin.lower() in {each.lower() for each in allowed}:
        return
    try:
        host = urlsplit(origin).netloc.lower()
    except ValueError:
        host = ""
    if not host or host != socket.headers.get("host", "").lower():
        raise ForeignOrigin(
            "A page of another origin may not open a stream here; DEPTHLENS_STREAM_ORIGINS can allow it.",
            field="Origin",
            value=origin[:100],
        )


async def _refuse(gateway: Gateway, socket: WebSocket, context: RequestContext, error: Exception, start: float) -> None:
    ours = of_work(error)
    context.problem_code = ours.code
    headers, body = written(ours, context.request_id)
    headers["X-Request-Id"] = context.request_id
    with suppress(WebSocketDisconnect):
        await socket.send_denial_response(Response(body, status_code=ours.status, headers=headers))
    access.record(gateway.metrics, context, "GET", PATH, ours.status, time.perf_counter() - start)
    if ours.status == 500:
        raise error


async def _close(socket: WebSocket, end: StreamEnd) -> None:
    if end.code is None:
        return
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):  # the client may have gone meanwhile
        async with asyncio.timeout(_CLOSE_S):
            await socket.close(end.code, end.reason)


async def no_such_stream(socket: WebSocket) -> None:
    """The answer to a WebSocket on any other path."""
    error = BadRequest(f"There is no such stream; there is {PATH}.", code="unknown_route")
    error.status, error.title = 404, "Not found"
    headers, body = written(error, RequestContext().request_id)
    await socket.send_denial_response(Response(body, status_code=404, headers=headers))
