"""The parts of one running gateway, and the frame every image request is answered in."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from service import tracing
from service.admission import Admission, until_left
from service.canary import Reason
from service.catalogue import find_model
from service.clients import Clients
from service.context import Deadline, RequestContext
from service.contract import ModelSpec, Task
from service.errors import DeadlineExceeded, InvalidParameter
from service.metrics import Metrics, Restarts
from service.pipeline import Pipeline
from service.replicas import Replicas
from service.rollout import Rollout
from service.scenes import Scenes
from service.schemas import parse_decimal
from service.settings import Settings
from service.streams import Streams
from service.upload import NamedPhoto, Parts, UploadMemory, UploadShare, read_image, read_parts, read_photos

TIMEOUT_HEADER = "X-Request-Timeout"


class EmbeddedServer(Restarts, Protocol):
    """What the gateway sees of a Triton that it runs itself."""

    @property
    def ready(self) -> bool:
        """Whether the supervisor's own probes answer; False from the first failed one until a model is healed."""
        ...

    async def exposition(self) -> bytes:
        """Its own metrics in Prometheus' text format, empty while it does not answer."""
        ...


T = TypeVar("T")
Read = Callable[[Request, int, UploadShare], Awaitable[T]]
Job = Callable[[RequestContext, T], Awaitable[Response]]


@dataclass(slots=True)
class Gateway:
    """What `create_app` wires together; routes get it as a dependency."""

    settings: Settings
    client: Replicas
    metrics: Metrics
    admission: Admission
    clients: Clients
    pipeline: Pipeline
    rollout: Rollout
    uploads: UploadMemory
    scenes: Scenes
    streams: Streams
    embedded: EmbeddedServer | None = None
    tracer: tracing.Tracer | None = None
    draining: bool = False

    def model_states(self) -> dict[str, str]:
        """`ok`, or why it does not answer, of each model behind the routes."""
        states = self.client.state()
        healing = self.embedded is not None and not self.embedded.ready
        return {model: "healing" if healing else str(reason) for model, reason in states.items()}

    @property
    def not_ready_because(self) -> str | None:
        """Why no photo would be answered now, None when one would on some route.

        A model that fails takes its own routes out, and not the gateway: the others would be lost with it.
        """
        states = self.model_states()
        if Reason.OK in states.values():
            return None
        return ", ".join(f"{model} {state}" for model, state in states.items())

    def admit(self, request: Request) -> None:
        """Begin the deadline of a request for work, and refuse it when there is no room: its body is still unread.

        Raises:
            InvalidParameter: the deadline it asks for is none.
            Overloaded, TooManyRequests: see `Admission.check_room`.
        """
        context: RequestContext = request.state.context
        context.deadline = Deadline.after(self._timeout_s(request))
        self.admission.check_room(context)

    async def model(self, request: HTTPConnection, name: str | None, task: Task) -> ModelSpec:
        """The model that a request names, or that of the settings when None; raises as `find_model`."""
        defaults: dict[Task, str] = {
            "depth": self.settings.depth_model,
            "segmentation": self.settings.segmentation_model,
            "focus": self.settings.focus_model,
        }
        context: RequestContext = request.state.context
        return await find_model(self.client, context.deadline, name, defaults[task], task)

    async def answer(self, request: Request, job: Job[bytes]) -> Response:
        """Answer a request that carries a photo and no more; raises as `answer_parts`."""
        return await self._answer(request, read_image, job)

    async def answer_parts(self, request: Request, maps: Collection[str], job: Job[Parts]) -> Response:
        """Read the upload, wait for a place, run `job`: all within the deadline that `admit` has begun.

        Args:
            request: not yet read.
            maps: multipart fields that may come beside the photo.
            job: makes the answer from the files, which may be none.

        Raises:
            DeadlineExceeded: the time was up; the work is cancelled down to the model.
            ClientLeft: nobody is left to read the answer; likewise cancelled.
            Overloaded: no place within the deadline, or within the longest wait.
            TooManyRequests: this client has its share of those that wait.
        """

        async def read(request: Request, max_bytes: int, share: UploadShare) -> Parts:
            return await read_parts(request, max_bytes, share, maps)

        return await self._answer(request, read, job)

    async def answer_batch(self, request: Request, job: Job[list[NamedPhoto]]) -> Response:
        """Read several photos and run `job`, which waits for a place for each; raises as `answer_parts`."""

        async def read(request: Request, max_bytes: int, share: UploadShare) -> list[NamedPhoto]:
            return await read_photos(request, max_bytes, share, self.settings.max_batch_images)

        return await self._answer(request, read, job, placed=False)

    async def _answer(self, request: Request, read: Read[T], job: Job[T], *, placed: bool = True) -> Response:
        context: RequestContext = request.state.context
        try:
            async with asyncio.timeout(context.deadline.remaining_s()):
                with self.uploads.share(context.client) as share:
                    with tracing.span("receive"):
                        data = await read(request, self.settings.max_body_bytes, share)

                    async def admitted() -> Response:
                        if not placed:
                            return await job(context, data)
                        async with self.admission.place(context):
                            return await job(context, data)

                    return await until_left(request, admitted)
        except (TimeoutError, DeadlineExceeded):  # whoever noticed first
            raise context.deadline.exceeded(context.stage) from None

    def _timeout_s(self, request: Request) -> float:
        text = request.headers.get(TIMEOUT_HEADER)
        if text is None:
            return self.settings.request_timeout_s
        cap = self.settings.max_request_timeout_s
        seconds = parse_decimal(text)
        if seconds is None or seconds <= 0:
            raise InvalidParameter(
                f"{TIMEOUT_HEADER} must be a number of seconds above 0, at most {cap:g}.",
                field=TIMEOUT_HEADER,
                value=text[:40],
                limit=cap,
            )
        return min(seconds, cap)


# Asynchronous, though it awaits nothing: FastAPI hands what is not to a thread, which costs more than this does.
async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDependency = Annotated[Gateway, Depends(_gateway)]
