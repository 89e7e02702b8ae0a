"""Networks exported beside the default one, on the real Triton: asked by name, listed, loaded while it runs, healed."""

import asyncio
import io
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import numpy as np
import pytest
from embedded_triton import eventually, make_repository, noise, processes
from fakes import encoded
from PIL import Image

from service.app import create_app
from service.contract import DEPTH_M, INVERSE_DEPTH, PERSON, Size
from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.imaging.geometry import Letterbox, choose_size
from service.inference import TritonClient
from service.settings import Settings

torch = pytest.importorskip("torch", reason="the extra `training` is not installed, so nothing can be exported")

from training.export import Exporter, Request, pair  # noqa: E402
from training.models.meta_learner import BASES, Stacked  # noqa: E402
from training.serving import Traits, outputs_of, served  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

WIDTH, HEIGHT = 120, 80
PIXELS = noise((HEIGHT, WIDTH))
PHOTO = encoded(Image.fromarray(PIXELS))
SIZES: tuple[Size, ...] = ((64, 64), (64, 96), (96, 64))
ONE_SIZE: tuple[Size, ...] = ((64, 96),)
"""Of the stack: a graph of one shape is exported in a fraction of the time."""
T = TypeVar("T")


class Network(torch.nn.Module):
    """A 3x3 convolution of the photo, above 0; `farthest` scales it."""

    def __init__(self, output: str, farthest: float = 4.0, stride: int = 32) -> None:
        super().__init__()
        self.output, self.stride, self.farthest = output, stride, farthest
        self.mix = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, image: "torch.Tensor") -> "torch.Tensor":
        mixed: torch.Tensor = self.mix(image.permute(0, 3, 1, 2).float() / 255)[:, 0]
        return mixed if self.output == "person" else self.farthest * torch.sigmoid(mixed)


class Brightness(torch.nn.Module):
    """A meta-learner: the first network to a share that the photo decides, else the mean of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.share = torch.nn.Conv2d(3, 1, 1)

    def forward(self, image: "torch.Tensor", depths_m: "torch.Tensor") -> "torch.Tensor":
        share = torch.sigmoid(self.share(image.permute(0, 3, 1, 2).float() / 255))[:, 0]
        return share * depths_m[:, 0] + (1 - share) * depths_m[:, 1:].mean(1)


def networks() -> dict[str, "torch.nn.Module"]:
    torch.manual_seed(0)
    return {
        "depth_near": Network("depth_m"),
        "depth_far": Network("depth_m", farthest=400.0),
        "depth_fourteen": Network("inverse_depth", stride=14),
        "segmentation_any": Network("person"),
        "depth_stacked": Stacked({name: Network("depth_m", 2.0 + k) for k, name in enumerate(BASES)}, Brightness()),
    }


NETWORKS = networks()


def sizes_of(name: str) -> tuple[Size, ...]:
    stride = int(NETWORKS[name].stride)
    sizes = ONE_SIZE if name == "depth_stacked" else SIZES
    return tuple((height // 32 * stride, width // 32 * stride) for height, width in sizes)


def export(repository: Path, name: str) -> dict[str, Any]:
    """Exported as `python -m training export --precision f32` does."""
    network = NETWORKS[name].eval()
    request = Request(name, bf16=False, traits=Traits("a test", "MIT", 0.5 if name == "depth_near" else None))
    exporter = Exporter(request, sizes_of(name), int(network.stride), [PIXELS], repository, {})
    write = exporter.stack if isinstance(network, Stacked) else exporter.network
    return write(network, outputs_of(network))


def expected(name: str) -> np.ndarray:
    """What the network in torch says of the photo, at the network's size without padding."""
    box = Letterbox.of(HEIGHT, WIDTH, choose_size(HEIGHT, WIDTH, sizes_of(name)))
    with torch.no_grad():
        found = served(NETWORKS[name])(torch.from_numpy(box.fit(PIXELS)[None]))[0][0].numpy()
    return box.crop(found)


SLEEPER = """
import pathlib
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.asleep = pathlib.Path(args["model_repository"]) / "asleep"

    def execute(self, requests):
        while self.asleep.exists():
            time.sleep(0.1)
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        flat = [pb_utils.Tensor("inverse_depth", np.ones(image.shape[:3], np.float32)) for image in images]
        return [pb_utils.InferenceResponse([tensor]) for tensor in flat]
"""


def write_sleeper(repository: Path) -> None:
    """`depth_sleeper`: answers 1 everywhere, and nothing while there is a file `asleep` in its folder."""
    folder = repository / "depth_sleeper"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(SLEEPER)
    text = (repository / "depth_fourteen" / "config.pbtxt").read_text().replace("depth_fourteen", "depth_sleeper")
    text = text.replace('backend: "openvino"', 'backend: "python"')
    left_out = ("default_model_filename", "model_warmup", "dynamic_batching")
    lines = [line for line in text.splitlines() if not line.startswith(left_out)]
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")


class Running:
    """A supervised Triton and a gateway over it, on an event loop of their own."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.do(self._start())

    def do(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(120)

    async def _start(self) -> None:
        settings = EmbeddedSettings(
            self.repository, others=True, canary_period_s=0.2, others_timeout_s=2.0, exit_timeout_s=0
        )
        self.supervisor = Supervisor(settings)
        await self.supervisor.start()
        client = TritonClient(self.supervisor.grpc_url, admin=self.supervisor.admin)
        self.app = create_app(Settings(), client, self.supervisor)
        transport = httpx2.ASGITransport(self.app)
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://gateway", timeout=60)
        for name in ("depth_stacked", "focus_far"):  # the last ones of a start
            await self.until(lambda name=name: self.post(f"/depth?model={name}"), 200)

    async def until(self, ask: Callable[[], Coroutine[Any, Any, Any]], status: int) -> None:
        async with asyncio.timeout(60):
            while (await ask()).status_code != status:
                await asyncio.sleep(0.05)

    async def post(self, path: str, photo: bytes = PHOTO) -> Any:
        return await self._http.post(path, content=photo)

    def ask(self, path: str, photo: bytes = PHOTO) -> Any:
        return self.do(self.post(path, photo))

    def get(self, path: str) -> Any:
        return self.do(self._http.get(path))

    def stop(self) -> None:
        async def stop() -> None:
            await self._http.aclose()
            await self.app.state.gateway.pipeline.close()
            await self.app.state.gateway.client.close()
            await self.supervisor.stop()

        self.do(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    torch.set_num_threads(1)
    repository = make_repository(tmp_path_factory.mktemp("others") / "repository")
    for name in NETWORKS:
        if name != "depth_near":
            metadata = export(repository, name)
            assert metadata["parity"]
    pair("depth_far", "segmentation_any", "focus_far", repository)
    write_sleeper(repository)
    broken = repository / "depth_broken"
    (broken / "1").mkdir(parents=True)
    (broken / "1" / "model.onnx").write_bytes(b"no network")
    text = (repository / "depth_far" / "config.pbtxt").read_text()
    (broken / "config.pbtxt").write_text(text.replace("depth_far", "depth_broken"))
    served_here = Running(repository)
    yield served_here
    served_here.stop()


def array(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    found: np.ndarray = np.load(io.BytesIO(answer.content))
    return found


@pytest.mark.parametrize("name", ["depth_far", "depth_fourteen", "depth_stacked", "segmentation_any"])
def test_the_gateway_gives_what_the_network_gave_before_it_was_exported(running: Running, name: str) -> None:
    route = "segmentation" if name.startswith("segmentation") else "depth"
    answer = running.ask(f"/{route}?model={name}&size=native&format=npy")
    found = array(answer)
    np.testing.assert_allclose(found, expected(name), rtol=1e-4, atol=1e-5)
    assert answer.headers["x-model"] == name
    if route == "depth":
        said = (answer.headers["x-depth-kind"], answer.headers["x-depth-unit"])
        assert said == (("relative-inverse", "relative") if name == "depth_fourteen" else ("metric", "m"))


@pytest.mark.parametrize(("name", "step_m"), [("depth_stacked", 0.001), ("depth_far", 0.01)])
def test_sixteen_bits_hold_millimetres_or_where_it_is_far_centimetres(
    running: Running, name: str, step_m: float
) -> None:
    metres = array(running.ask(f"/depth?model={name}&format=npy"))
    answer = running.ask(f"/depth?model={name}")
    assert (float(answer.headers["x-depth-scale"]), float(answer.headers["x-depth-offset"])) == (step_m, 0)
    with Image.open(io.BytesIO(answer.content)) as image:
        stored = np.asarray(image)
        assert image.text["Depth-Unit"] == "m"
    assert stored.shape == metres.shape == (HEIGHT, WIDTH)
    assert np.abs(stored * step_m - metres).max() <= step_m / 2 + 1e-4
    report = running.ask(f"/depth?model={name}&format=json&points=3,4").json()
    assert (report["kind"], report["unit"]) == ("metric", "m")
    assert report["points"][0]["value"] == pytest.approx(float(metres[4, 3]), rel=1e-5)
    nearest = np.unravel_index(metres.argmin(), metres.shape)
    report = running.ask(f"/depth?model={name}&format=json&points={nearest[1]},{nearest[0]}").json()
    assert report["points"][0]["relative"] == pytest.approx(1)
    sharp = array(running.ask(f"/depth?model={name}&format=npy&edges=sharp"))
    assert metres.min() * 0.99 <= sharp.min() < sharp.max() <= np.float32(expected(name).max()) * 1.01
    with np.load(io.BytesIO(running.ask(f"/depth?model={name}&format=npz").content)) as npz:
        np.testing.assert_array_equal(npz["depth_m"], metres)


def test_two_models_behind_one_focus_call(running: Running) -> None:
    answer = running.ask("/focus?model=focus_far&x=20&y=20&mode=plane&format=png")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == "focus_far"
    depth = array(running.ask("/depth?model=focus_far&size=native&format=npy"))
    np.testing.assert_allclose(depth, expected("depth_far"), rtol=1e-4)


@pytest.mark.parametrize("name", ["../x", "Depth", "depth%00"])
def test_a_name_that_no_model_can_have_asks_nobody(running: Running, name: str) -> None:
    problem = running.ask(f"/depth?model={name}").json()
    assert (problem["status"], problem["code"], problem["field"]) == (404, "unknown_model", "model")
    assert problem["available"] == ["focus", "focus_on_depth"]


@pytest.mark.parametrize("name", ["depth_nothing", "depth_meta", "depth_broken", "segmentation_any"])
def test_another_name_is_unknown_and_lists_those_there_are(running: Running, name: str) -> None:
    answer = running.ask(f"/depth?model={name}")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (404, "unknown_model", "model")
    there = {
        "depth_adabins",
        "depth_bts",
        "depth_lapdepth",
        "depth_far",
        "depth_fourteen",
        "depth_sleeper",
        "depth_stacked",
        "focus_far",
    }
    assert there | {"focus", "focus_on_depth"} == set(problem["available"]) - {"depth_near"}


def test_models_say_what_they_take_and_give(running: Running) -> None:
    listed = {model["name"]: model for model in running.get("/models").json()["models"]}
    assert list(listed)[:2] == ["focus_on_depth", "focus"]
    stacked, meta = listed["depth_stacked"], listed["depth_meta"]
    assert (stacked["kind"], stacked["ready"], stacked["depth_kind"]) == ("ensemble", True, "metric")
    assert (stacked["sizes"], stacked["license"]) == ([list(size) for size in ONE_SIZE], "MIT")
    assert listed["depth_far"]["sizes"] == [list(size) for size in SIZES]
    assert (listed["depth_far"]["precision"], stacked["precision"]) == ("float32", "that of its steps")
    assert (meta["tasks"], [tensor["name"] for tensor in meta["inputs"]]) == (
        [],
        ["image", "adabins_m", "bts_m", "lapdepth_m"],
    )
    assert "depth_broken" not in listed


def test_a_network_is_exported_loaded_and_unloaded_while_it_serves(running: Running) -> None:
    assert running.ask("/depth?model=depth_near").status_code == 404
    export(running.repository, "depth_near")
    rollout = running.app.state.gateway.rollout
    assert running.do(rollout.load("depth_near", "1")).version == "1"
    plain = array(running.ask("/depth?model=depth_near&size=native&format=npy"))
    np.testing.assert_allclose(plain, expected("depth_near"), rtol=1e-4)
    # learned with a focal length of half the longer side; this photo's is a whole one
    tele = array(running.ask(f"/depth?model=depth_near&size=native&format=npy&focal_px={WIDTH}"))
    np.testing.assert_allclose(tele, 2 * plain, rtol=1e-5)
    refused = running.ask("/depth?model=depth_far&focal_px=100").json()
    assert (refused["code"], refused["field"]) == ("no_focal_length", "focal_px")
    assert running.do(rollout.unload("depth_near")).version is None
    other = encoded(Image.fromarray(noise((HEIGHT, WIDTH), 1)))
    assert running.ask("/depth?model=depth_near", other).status_code == 503


SEEDS = iter(range(100, 10_000))
"""Of photos that no cache has seen."""

BESIDE = ("focus_on_depth", "depth_fourteen", "depth_bts")


async def unseen(running: Running, model: str) -> Any:
    """The answer to a photo that no cache has seen."""
    photo = encoded(Image.fromarray(noise((HEIGHT, WIDTH), next(SEEDS))))
    return await running.post(f"/depth?model={model}", photo)


def stubs(running: Running, model: str) -> list[int]:
    """Numbers of a model's processes."""
    assert running.supervisor.pid is not None
    found = processes(running.supervisor.pid, "python_backend_stub")
    return [pid for pid in found if f"/{model}/" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize(("victim", "asked"), [("depth_far", "depth_far"), ("depth_meta", "depth_stacked")])
def test_a_process_that_dies_or_stops_is_replaced_and_the_others_serve_on(
    running: Running, victim: str, asked: str, harm: signal.Signals
) -> None:
    [stub] = stubs(running, victim)
    beside = {model: stubs(running, model) for model in BESIDE}
    reloads = running.supervisor.reloads
    os.kill(stub, harm)
    running.do(eventually(lambda: running.supervisor.reloads > reloads, 60))
    running.do(running.until(lambda: unseen(running, asked), 200))
    assert stub not in stubs(running, victim)
    assert {model: stubs(running, model) for model in BESIDE} == beside
    assert running.supervisor.restarts == 0


def test_a_model_that_never_ends_its_work_gets_a_new_process(running: Running) -> None:
    assert running.do(unseen(running, "depth_sleeper")).status_code == 200
    [stub] = stubs(running, "depth_sleeper")
    beside = {model: stubs(running, model) for model in BESIDE}
    asleep = running.repository / "depth_sleeper" / "asleep"
    asleep.touch()
    try:  # its process lives, so Triton calls it ready
        running.do(eventually(lambda: stub not in stubs(running, "depth_sleeper"), 60))
    finally:
        asleep.unlink()
    running.do(running.until(lambda: unseen(running, "depth_sleeper"), 200))
    assert {model: stubs(running, model) for model in BESIDE} == beside
    assert running.supervisor.restarts == 0


def test_the_outputs_are_those_of_the_contract() -> None:
    kinds = {name: outputs_of(network) for name, network in NETWORKS.items()}
    assert kinds["depth_far"] == kinds["depth_stacked"] == (DEPTH_M,)
    assert (kinds["depth_fourteen"], kinds["segmentation_any"]) == ((INVERSE_DEPTH,), (PERSON,))
