"""Models asked by name, on a fake client: found, unknown, not yet there, and asked of nobody where that is no use."""

import asyncio
from dataclasses import replace

import pytest
from fakes import FakeDepthClient

from service.catalogue import find_model
from service.context import Deadline
from service.contract import DEPTH_M, MODELS, ModelSpec
from service.errors import DeadlineExceeded, ModelUnavailable, UnknownModel
from service.inference import ServedModel

METRIC = replace(
    MODELS["focus_on_depth"], name="depth_bts", tasks=frozenset({"depth"}), outputs=(DEPTH_M,), depth_kind="metric"
)


class Server(FakeDepthClient):
    """Has `depth_bts` besides."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def spec(self, model: str) -> ModelSpec:
        self.asked.append(model)
        await self.hook()
        if model != METRIC.name:
            raise UnknownModel("none")
        return METRIC

    async def served_models(self) -> list[ServedModel]:
        return [*await super().served_models(), ServedModel(METRIC.name, "1", True, METRIC)]


def find(server: Server, name: str | None, *, default: str = "focus_on_depth", timeout_s: float = 5.0) -> ModelSpec:
    return asyncio.run(find_model(server, Deadline.after(timeout_s), name, default, "depth"))


def test_models_of_the_contract_need_no_question() -> None:
    server = Server()
    assert find(server, None) == find(server, "focus_on_depth") == MODELS["focus_on_depth"]
    assert server.asked == []


def test_another_one_is_asked_for() -> None:
    found = find(Server(), "depth_bts")
    assert (found.depth_output, found.takes_image) == ("depth_m", True)


def test_an_unknown_one_lists_those_there_are() -> None:
    with pytest.raises(UnknownModel) as caught:
        find(Server(), "depth_adabins")
    assert caught.value.extra == {"available": ["depth_bts", "focus", "focus_on_depth"]}


def test_a_default_that_is_not_loaded_yet_is_unavailable_not_unknown() -> None:
    with pytest.raises(ModelUnavailable):
        find(Server(), None, default="depth_adabins")


def test_a_server_that_does_not_say_costs_no_more_than_the_deadline() -> None:
    server = Server()
    server.hook = lambda: asyncio.sleep(60)
    with pytest.raises(DeadlineExceeded):
        find(server, "depth_bts", timeout_s=0.05)
