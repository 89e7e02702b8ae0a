"""Which models can be asked: those of the contract, and those that the servers have beside them."""

import asyncio
import re

from service.context import Deadline
from service.contract import MODEL_NAME, MODELS, ModelSpec, Task
from service.errors import ModelUnavailable, UnknownModel
from service.inference import DepthClient


async def find_model(client: DepthClient, deadline: Deadline, name: str | None, default: str, task: Task) -> ModelSpec:
    """What the model `name`, or `default` when None, takes and gives.

    Args:
        client: the servers; asked about no model of the contract, and about any other once.
        deadline: of the request.
        name: as the caller wrote it.
        default: the setting of the route.
        task: of the route.

    Raises:
        UnknownModel: no such model, or it does not do `task`; lists those that do. A name that no model can have is
            never sent to a server: the list is that of the contract then.
        ModelUnavailable: no server can be asked, or it does not have the default of the settings yet.
        DeadlineExceeded: no server said so in time.
    """
    wanted = default if name is None else name
    if not re.fullmatch(MODEL_NAME, wanted):
        raise _unknown(wanted, task, sorted(spec.name for spec in MODELS.values() if task in spec.tasks))
    known = MODELS.get(wanted)
    if known is not None and task in known.tasks:
        return known
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            spec = known or await _asked(client, wanted)
            if spec is not None and task in spec.tasks:
                return spec
            if spec is None and name is None:
                raise ModelUnavailable(f"The model {default} is not loaded. Try again.")
            able = await _able(client, task)
    except TimeoutError:
        raise deadline.exceeded("infer") from None
    raise _unknown(wanted, task, able)


def _unknown(wanted: str, task: Task, able: list[str]) -> UnknownModel:
    return UnknownModel(
        f"No served model of that name does {task}. Choose one of: {', '.join(able)}.",
        field="model",
        value=wanted[:100],
        extra={"available": able},
    )


async def _asked(client: DepthClient, name: str) -> ModelSpec | None:
    try:
        return await client.spec(name)
    except UnknownModel:
        return None


async def _able(client: DepthClient, task: Task) -> list[str]:
    served = [entry.spec for entry in await client.served_models() if entry.spec is not None]
    return sorted({spec.name for spec in (*MODELS.values(), *served) if task in spec.tasks})
