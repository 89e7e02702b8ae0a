"""Many photos in one request, each answered or refused for itself.

Each photo takes a place of its own, as a request of its own would, and is charged to its client like one: a batch gets
no more of the service than as many single requests. No more of a batch than there are places is under way at once.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

import orjson
from starlette.requests import Request

from service import analysis
from service.analysis import Plan
from service.bundle import File
from service.context import Deadline, RequestContext
from service.errors import DepthlensError, EmptyBody, TooLarge
from service.gateway import Gateway
from service.problems import to_error
from service.schemas import BatchItem, BatchReport
from service.upload import NamedPhoto

logger = logging.getLogger("depthlens")

_LEFT_SHARE: Final = 0.1  # of the deadline, kept for putting together what is ready
_MOST_LEFT_S: Final = 1.0


@dataclass(slots=True)
class _Budget:
    """Bytes of all files of a batch together."""

    most: int
    used: int = 0

    def take(self, files: list[File]) -> None:
        size = sum(len(file.body) for file in files)
        if self.used + size > self.most:
            raise TooLarge(
                f"The files of this batch would have more than {self.most} bytes. Send fewer photos, or ask for "
                "size=native.",
                code="answer_too_large",
                field="outputs",
                value=self.used + size,
                limit=self.most,
            )
        self.used += size


async def answer(
    gateway: Gateway, request: Request, context: RequestContext, photos: list[NamedPhoto], plan: Plan
) -> list[File]:
    """A report on all photos, and the files of those that could be answered, in folders by their number.

    Whatever is wrong with one photo is said in the report and costs no other one its answer; so does the deadline.
    """
    settings = gateway.settings
    budget = _Budget(settings.max_batch_bytes)
    places = asyncio.Semaphore(settings.max_inflight)
    own = _earlier(context.deadline)

    async def one(index: int, photo: NamedPhoto) -> tuple[BatchItem, list[File]]:
        part = replace(context, request_id=f"{context.request_id}.{index}", stage_s={}, deadline=own)
        try:
            async with places, asyncio.timeout(own.remaining_s()):
                files = await _work(gateway, part, index, photo.data, plan)
            budget.take(files)
        except Exception as error:
            late = isinstance(error, TimeoutError)
            return _refused(index, photo, own.exceeded(part.stage) if late else error, request, part), []
        finally:
            for stage, seconds in part.stage_s.items():
                context.stage_s[stage] = context.stage_s.get(stage, 0.0) + seconds
        named = [replace(file, name=f"{index}/{file.name}") for file in files]
        item = BatchItem(
            index=index,
            name=photo.name,
            status=200,
            problem=None,
            retry_after_s=None,
            files=analysis.described(named),
        )
        return item, named

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index, photo)) for index, photo in enumerate(photos)]
    done = [task.result() for task in tasks]
    report = BatchReport(items=[item for item, _ in done])
    files = [file for _, files in done for file in files]
    return [File(analysis.REPORT, "application/json", orjson.dumps(report.model_dump()), {}), *files]


def _earlier(deadline: Deadline) -> Deadline:
    left_s = min(_MOST_LEFT_S, _LEFT_SHARE * deadline.timeout_s)
    return replace(deadline, expires_at=deadline.expires_at - left_s)


async def _work(gateway: Gateway, context: RequestContext, index: int, data: bytes, plan: Plan) -> list[File]:
    if index:  # the first was counted at the door
        gateway.clients.count(context.client)
    if not data:
        raise EmptyBody("This image has zero bytes.")
    async with gateway.admission.place(context):
        return await analysis.files_of(gateway, context, data, plan)


def _refused(index: int, photo: NamedPhoto, error: Exception, request: Request, context: RequestContext) -> BatchItem:
    ours: DepthlensError = to_error(error, request)
    if ours.status == 500:
        logger.error("request %s: %s", context.request_id, ours.code, exc_info=error)
    return BatchItem(
        index=index,
        name=photo.name,
        status=ours.status,
        problem=ours.problem(context.request_id),
        retry_after_s=ours.retry_after_s,
    )
