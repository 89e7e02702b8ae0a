"""A job: photos to a service, several at a time, each result to its file."""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.batch.display import Display
from service.batch.plan import STREAM, Item
from service.batch.report import Outcome, write_whole
from service.client import (
    AsyncClient,
    ClientError,
    ConnectionFailed,
    File,
    Problem,
    TimedOut,
    Unauthorized,
)

_HOPELESS = (ConnectionFailed, Unauthorized)
"""After one of these no other photo of the job would fare better."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Args:
        route: of the service.
        parameters: of its query.
        items: photos and targets.
        skipped: those of them to leave out, because their result is there.
        parallel: requests at a time.
    """

    route: str
    parameters: Mapping[str, str]
    items: Sequence[Item]
    skipped: Sequence[Item]
    parallel: int

    def outcomes(self) -> list[Outcome]:
        """One for each item, before anything was done."""
        return [Outcome(item.name, STREAM if item.target is None else str(item.target)) for item in self.items]


async def work(job: Job, client: AsyncClient, outcomes: list[Outcome], display: Display) -> None:
    """Do the job, and note in `outcomes` how each photo fares; those not begun stay as they are.

    A photo that fails is named, and the others go on, unless it failed for a reason that they share: nobody answers, or
    the key is refused.
    """
    left = iter(zip(job.items, outcomes, strict=True))
    stopped = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(job.parallel, len(job.items))):
            group.create_task(_worker(job, client, left, display, stopped))


async def _worker(
    job: Job, client: AsyncClient, left: Iterator[tuple[Item, Outcome]], display: Display, stopped: asyncio.Event
) -> None:
    for item, outcome in left:
        if item in job.skipped:
            outcome.status = outcome.code = "skipped"
        else:
            await _one(job, client, item, outcome, stopped)
        display.step(outcome)
        if stopped.is_set():
            return


async def _one(job: Job, client: AsyncClient, item: Item, outcome: Outcome, stopped: asyncio.Event) -> None:
    start = time.monotonic()
    outcome.status = "failed"
    try:
        data = await asyncio.to_thread(_read, item)
        file = await client.fetch(job.route, data, **job.parameters)
        outcome.model, outcome.model_version = file.about.model, file.about.version
        outcome.request_id, outcome.http_status = file.about.request_id, 200
        await asyncio.to_thread(_write, item, file)
        outcome.status = outcome.code = "ok"
    except asyncio.CancelledError:
        outcome.status = outcome.code = "interrupted"
        raise
    except ClientError as error:
        _note(outcome, error)
        if isinstance(error, _HOPELESS):
            stopped.set()
    except _Unwritable as error:
        outcome.code, outcome.detail = "unwritable", str(error)
    except OSError as error:
        outcome.code, outcome.detail = "unreadable", error.strerror or str(error)
    finally:
        outcome.seconds = round(time.monotonic() - start, 3)


class _Unwritable(Exception):
    """The result has no place."""


def _note(outcome: Outcome, error: ClientError) -> None:
    if isinstance(error, Problem):
        outcome.http_status, outcome.request_id = error.status, error.request_id
        outcome.code, outcome.detail = error.code, error.detail
    else:
        kinds = {ConnectionFailed: "connection_failed", TimedOut: "timed_out"}
        outcome.code, outcome.detail = kinds.get(type(error), "unexpected_answer"), str(error)


def _read(item: Item) -> bytes:
    return sys.stdin.buffer.read() if item.source is None else item.source.read_bytes()


def _write(item: Item, file: File) -> None:
    try:
        if item.target is None:
            sys.stdout.buffer.write(file.data)
            sys.stdout.buffer.flush()
        else:
            write_whole(item.target, file.data)
    except OSError as error:
        raise _Unwritable(f"{STREAM if item.target is None else item.target}: {error.strerror}") from error
