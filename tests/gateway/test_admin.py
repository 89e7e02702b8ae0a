"""`/admin/models` and `depthlens models` on fake servers that keep versions as Triton does."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from fakes import FakeDepthClient, encoded, picture
from starlette.testclient import TestClient

from service.__main__ import main
from service.app import create_app
from service.clients import hash_of
from service.contract import CANARY_SIZE
from service.errors import ContractViolation, ModelFailed, ModelUnavailable
from service.inference import Prediction
from service.server import bind
from service.settings import Settings
from service.triton_errors import VersionGone

KEY = "dl_of-the-operator"
NETWORK, ENSEMBLE = "focus_on_depth", "focus"
BROKEN, NAN = "3", "4"


class VersionedServer(FakeDepthClient):
    """Loads the versions a configuration names: 3 does not load, 4 answers NaN. Notes what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: dict[str, list[str]] = {NETWORK: ["1"], ENSEMBLE: ["1"]}
        self.step = -1
        self.chosen: dict[str, str] = {}
        self.told: list[str] = []
        self.reachable = True

    async def infer(self, model, image, *, outputs=None, timeout_s, request_id=None):  # type: ignore[no-untyped-def]
        if not self.loaded[model]:
            raise VersionGone("not loaded")
        answer = await super().infer(model, image, timeout_s=timeout_s)
        return Prediction(answer.outputs, model, self.chosen.get(model, self.loaded[model][-1]))

    async def infer_version(self, model, version, image, *, timeout_s):  # type: ignore[no-untyped-def]
        if version == NAN:
            raise ModelFailed("The model answered values that are not numbers.")
        return await self.infer(model, image, timeout_s=timeout_s)

    async def names(self) -> list[str]:
        return list(self.loaded)

    async def serving(self, model: str) -> list[str]:
        if not self.reachable:
            raise ModelUnavailable("The inference server is not available.")
        if not self.loaded[model]:
            raise VersionGone("not loaded")
        chosen = self.chosen.get(model)
        return sorted(self.loaded[model], key=lambda version: (version == chosen, int(version)), reverse=True)

    async def config(self, model: str) -> dict[str, object]:
        await self.serving(model)
        steps = [{"model_name": NETWORK, "model_version": str(self.step)}]
        return {"name": model} | ({"ensemble_scheduling": {"step": steps}} if model == ENSEMBLE else {})

    async def load(self, model, config=None):  # type: ignore[no-untyped-def]
        if model == ENSEMBLE:
            self.step = config["ensemble_scheduling"]["step"][0]["model_version"]
            self.told.append(f"{model} at {self.step}")
            return
        versions = [str(version) for version in config["version_policy"]["specific"]["versions"]] if config else ["1"]
        self.told.append(f"{model} {'+'.join(versions)}")
        if BROKEN in versions:
            raise ContractViolation("The inference server refuses the request.")
        self.loaded[model] = versions

    async def unload(self, model: str) -> None:
        self.loaded[model] = []

    def choose(self, model: str, version: str) -> None:
        self.chosen[model] = version


Servers = dict[str, VersionedServer]


def settings(**changes: object) -> Settings:
    addresses = "127.0.0.1:1,127.0.0.1:2"
    return Settings(triton_url=addresses, admin_key_hashes=hash_of(KEY), canary_period_s=0.02, **changes)


@pytest.fixture
def servers() -> Servers:
    return {}


@pytest.fixture
def gateway(servers: Servers) -> Iterator[TestClient]:
    app = create_app(settings(), connect=lambda address: servers.setdefault(address, VersionedServer()))
    headers = {"Authorization": f"Bearer {KEY}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        while client.get("/health/ready").status_code != 200:
            pass
        yield client


def version_header(gateway: TestClient, route: str = "/depth") -> str:
    answer = gateway.post(route, content=encoded(picture()))
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-model-version"])


def test_a_version_is_loaded_beside_the_old_one_before_it_is_chosen(gateway: TestClient, servers: Servers) -> None:
    assert version_header(gateway) == "1"
    answer = gateway.post(f"/admin/models/{NETWORK}/load?version=2")
    assert answer.json() == {"name": NETWORK, "version": "2", "loaded": [["2"], ["2"]], "previous": ["1"]}
    assert version_header(gateway) == "2", "the cached map of version 1 is forgotten"
    for server in servers.values():
        assert server.told == [
            *(f"{NETWORK} 1", f"{ENSEMBLE} at 1", f"{NETWORK} 1+2"),
            *(f"{ENSEMBLE} at 2", f"{NETWORK} 2", f"{ENSEMBLE} at -1"),
        ]


@pytest.mark.parametrize("version", [BROKEN, NAN])
def test_a_version_that_is_no_good_never_serves(gateway: TestClient, servers: Servers, version: str) -> None:
    answer = gateway.post(f"/admin/models/{NETWORK}/load?version={version}")
    assert (answer.status_code, answer.json()["code"]) == (502, "rollout_failed")
    assert "Version 1 serves on" in answer.json()["detail"]
    assert version_header(gateway) == "1"
    assert [server.loaded[NETWORK] for server in servers.values()] == [["1"], ["1"]]
    assert [server.step for server in servers.values()] == [-1, -1]
    assert gateway.get("/health/ready").json()["status"] == "ready"


def test_rollback_goes_back_as_often_as_was_loaded(gateway: TestClient) -> None:
    for version in ("2", "5"):
        assert gateway.post(f"/admin/models/{NETWORK}/load?version={version}").status_code == 200
    for version in ("2", "1"):
        assert gateway.post(f"/admin/models/{NETWORK}/rollback").json()["version"] == version
        assert version_header(gateway) == version
    answer = gateway.post(f"/admin/models/{NETWORK}/rollback")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_previous_version")


def test_loading_what_serves_changes_nothing(gateway: TestClient) -> None:
    assert gateway.post(f"/admin/models/{NETWORK}/load?version=1").json()["previous"] == []


def test_unloading_takes_its_routes_out(gateway: TestClient) -> None:
    assert gateway.post(f"/admin/models/{NETWORK}/unload").json()["version"] is None
    answer = gateway.post("/depth", content=encoded(picture(60, 60)))
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert gateway.post(f"/admin/models/{NETWORK}/load?version=2").json()["loaded"] == [["2"], ["2"]]


def test_all_servers_or_none(gateway: TestClient, servers: Servers) -> None:
    servers["127.0.0.1:2"].reachable = False
    answer = gateway.post(f"/admin/models/{NETWORK}/load?version=2")
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert servers["127.0.0.1:1"].loaded[NETWORK] == ["1"]


@pytest.mark.parametrize("name", ["nothing", "..%2F..%2Fetc%2Fpasswd", "x" * 5000])
def test_other_names_never_reach_a_server(gateway: TestClient, servers: Servers, name: str) -> None:
    for action in ("load?version=1", "rollback", "unload"):
        answer = gateway.post(f"/admin/models/{name}/{action}")
        assert answer.status_code == 404
    assert [server.told for server in servers.values()] == [[], []]


@pytest.mark.parametrize("version", ["", "?version=0", "?version=-1", "?version=latest", "?version=1e3"])
def test_a_version_is_a_number(gateway: TestClient, version: str) -> None:
    assert gateway.post(f"/admin/models/{NETWORK}/load{version}").status_code == 422


def test_a_server_is_taken_out_and_put_back(gateway: TestClient, servers: Servers) -> None:
    first, second = "127.0.0.1:1", "127.0.0.1:2"
    drained = gateway.post(f"/admin/servers/{first}/drain")
    assert drained.json() == {"address": first, "state": "drained", "inflight": 0}
    asked = len(servers[first].calls)
    for width in range(70, 80):
        assert gateway.post("/depth", content=encoded(picture(width))).status_code == 200
    photos = [shape for _, shape in servers[first].calls[asked:] if shape[:2] != CANARY_SIZE]
    assert photos == [], "only its readiness inferences go on"
    last = gateway.post(f"/admin/servers/{second}/drain")
    assert (last.status_code, last.json()["code"]) == (409, "last_server")
    unknown = gateway.post("/admin/servers/127.0.0.1:3/drain")
    assert (unknown.status_code, unknown.json()["field"]) == (422, "address")
    assert [each["state"] for each in gateway.get("/admin/servers").json()] == ["drained", "serving"]
    assert gateway.post(f"/admin/servers/{first}/resume").json()["state"] == "serving"


def test_the_key_is_needed(gateway: TestClient) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer dl_of-somebody"}, {"X-API-Key": "wrong"}):
        answer = gateway.get("/admin/models", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert [model["name"] for model in gateway.get("/admin/models").json()["models"]] == [NETWORK, ENSEMBLE]


def test_without_a_key_there_are_no_such_routes() -> None:
    app = create_app(Settings(canary_period_s=60), FakeDepthClient())
    with TestClient(app) as client:
        answer = client.get("/admin/models", headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")
    assert not any(path.startswith("/admin") for path in app.openapi()["paths"])


@pytest.mark.parametrize("hashes", ["secret", KEY])
def test_what_is_no_hash_is_refused(hashes: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Settings(admin_key_hashes=hashes)
    with pytest.raises(ValueError, match="name=secret"):
        Settings(triton_admin="secret")


@pytest.fixture
def url(servers: Servers) -> Iterator[str]:
    app = create_app(settings(), connect=lambda address: servers.setdefault(address, VersionedServer()))
    listener = bind("127.0.0.1", 0)
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_the_command(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DEPTHLENS_ADMIN_KEY", KEY)
    monkeypatch.setenv("DEPTHLENS_GATEWAY_URL", url)
    assert main(["models", "load", NETWORK, "2"]) == 0
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(f"{NETWORK}  version 2  (on each server: 2 2, before: 1)",) * 2,
        f"{ENSEMBLE}  version 1  (on each server: 1 1)",
    ]
    assert main(["models", "load", NETWORK, BROKEN]) == 1
    assert "502 rollout_failed" in capsys.readouterr().err
    assert main(["models", "rollback", NETWORK]) == 0
    assert main(["models", "unload", "nothing"]) == 1
    assert "404 unknown_model" in capsys.readouterr().err
    assert main(["servers", "drain", "127.0.0.1:2"]) == 0
    assert main(["servers", "drain", "127.0.0.1:1"]) == 1
    assert main(["servers", "list"]) == 0
    assert main(["servers", "resume", "127.0.0.1:2"]) == 0
    said = capsys.readouterr()
    assert "409 last_server" in said.err
    assert said.out.splitlines() == [
        "127.0.0.1:2  drained  (0 in work)",
        "127.0.0.1:1  serving  (0 in work)",
        "127.0.0.1:2  drained  (0 in work)",
        "127.0.0.1:2  serving  (0 in work)",
    ]
    monkeypatch.setenv("DEPTHLENS_ADMIN_KEY", "dl_wrong")
    assert main(["models", "list"]) == 1
    assert "401 unauthorized" in capsys.readouterr().err


def test_the_command_without_a_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    listener = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    assert main(["models", "--gateway-url", address, "list"]) == 1
    assert "no answer from" in capsys.readouterr().err
    assert main(["models", "--gateway-url", "file:///etc/passwd", "list"]) == 2
