"""Streams of pairs through `depthlens serve` and the real Triton: as offline, apart, flat in memory.

`make bench-stereo` is the long version, with trained weights and a clock.
"""

import io
import threading
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from embedded_triton import make_repository
from fakes import encoded
from PIL import Image
from served_gateway import ROOT, Served
from streaming import Heard, Stream, streaming

torch = pytest.importorskip("torch", reason="the extra `training` is not installed: the model's process needs torch")

import safetensors.torch  # noqa: E402

from training.adaptation import AdaptationConfig, Adapter  # noqa: E402
from training.data.stereo_pairs import StereoFrame, layered_sequence  # noqa: E402
from training.models.madnet import MADNet  # noqa: E402
from training.stereo_export import export_stereo  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

FRAMES = 10
SIZE = (64, 96)


@pytest.fixture(scope="module")
def base() -> MADNet:
    torch.manual_seed(0)
    return MADNet().eval()


@pytest.fixture(scope="module")
def served(base: MADNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stereo_streams")
    weights = folder / "random.safetensors"
    safetensors.torch.save_file(base.state_dict(), weights, metadata={"model": "madnet"})
    repository = make_repository(folder / "repository")
    export_stereo(weights, repository, max_streams=2)
    running = Served(repository, folder / "log", PYTHONPATH=str(ROOT), DEPTHLENS_REQUEST_TIMEOUT_S="120")
    try:
        _until_served(running)
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(60) == 0, running.log.read_text()[-4000:]


def _until_served(running: Served) -> None:
    served = threading.Event()
    for _ in range(600):
        with httpx2.Client(base_url="http://{}:{}".format(*running.address)) as client:
            models = {each["name"]: each for each in client.get("/models").json()["models"]}
        if models["stereo_madnet"]["ready"]:
            return
        served.wait(0.2)
    raise AssertionError(running.log.read_text()[-4000:])


def png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels))


def sequence(domain: str, seed: int, count: int = FRAMES) -> list[StereoFrame]:
    return list(layered_sequence(domain, seed, count, SIZE))  # type: ignore[arg-type]  # a name of DOMAINS


def message(frame: StereoFrame) -> bytes:
    left, right = png(frame.left), png(frame.right)
    return len(left).to_bytes(4) + left + right


def ask(stream: Stream, frame: StereoFrame) -> Heard:
    stream.send(message(frame))
    heard = stream.hear(120)
    assert heard.words["type"] == "result", heard.words
    return heard


def disparity(heard: Heard) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(heard.body))
    return found


def test_two_streams_at_once_are_each_as_if_alone_and_a_third_caller_is_answered_between(
    served: Served, base: MADNet
) -> None:
    """Frame by frame in turns; every answer is the offline run's to 1e-4, and who does not adapt has the base's."""
    worlds = {"mad": sequence("night", 1), "full": sequence("fog", 2)}
    alone = {mode: Adapter(base, AdaptationConfig(mode=mode)) for mode in ("mad", "full")}  # type: ignore[arg-type]  # two modes
    query = "task=stereo&drop=none&format=npy&adapt="
    still = sequence("clean", 3, 1)[0]
    with torch.no_grad():
        expected_still = base(torch.from_numpy(still.left[None]), torch.from_numpy(still.right[None]))[0].numpy()
    with (
        streaming(served.address, query + "mad") as one,
        streaming(served.address, query + "full") as two,
        streaming(served.address, query + "none") as third,
    ):
        for number in range(FRAMES):
            for mode, stream in (("mad", one), ("full", two)):
                stream.send(message(worlds[mode][number]))  # both are under way
            kept = ask(third, still)
            np.testing.assert_allclose(disparity(kept), expected_still, atol=1e-4)
            assert kept.words["adaptation"]["loss"] is None
            for mode, stream in (("mad", one), ("full", two)):
                heard = stream.hear(120)
                frame = worlds[mode][number]
                expected = alone[mode].step(frame.left, frame.right)
                np.testing.assert_allclose(disparity(heard), expected.disparity_px, atol=1e-4)
                said = heard.words["adaptation"]
                assert said["loss"] == pytest.approx(expected.loss, abs=1e-4)
                assert (said["group"], said["frames"], said["reset"]) == (expected.group, number + 1, expected.reset)
                assert heard.words["reset"] == (None if number else "start")


def test_what_is_learned_lowers_the_loss_and_memory_stays(served: Served) -> None:
    """The same pair again and again: each answer is better than the one before it, or the learning is not kept."""
    frame = sequence("night", 4, 1)[0]
    pid = served.model_pid("stereo_madnet")
    losses, resident = [], {}
    with streaming(served.address, "task=stereo&drop=none&size=native&adapt=full") as stream:
        for number in range(20):
            losses.append(ask(stream, frame).words["adaptation"]["loss"])
            if number in (5, 19):
                resident[number] = served.resident_bytes(pid), served.resident_bytes()
    assert losses[-1] < losses[10] < losses[0]
    grown = [after - before for before, after in zip(resident[5], resident[19], strict=True)]
    assert max(grown) < 24 * 2**20, f"{grown} bytes in 14 frames; a copy of the weights has 15 MB"


def test_a_stream_that_ends_leaves_its_place_to_others(served: Served) -> None:
    """Two sequences are kept: after ten streams that ended, a named one is still there; a third one evicts."""
    frame = sequence("fog", 5, 1)[0]
    named = "task=stereo&drop=none&size=native&sequence="
    with streaming(served.address, named + "kept") as stream:
        ask(stream, frame)
    for _ in range(3):
        with streaming(served.address, "task=stereo&drop=none&size=native") as stream:
            assert ask(stream, frame).words["adaptation"]["origin"] == "new"
            stream.ended()
    with streaming(served.address, named + "kept") as stream:
        assert ask(stream, frame).words["adaptation"]["origin"] == "kept"
        for name in ("b", "c"):
            with streaming(served.address, named + name) as other:
                ask(other, frame)
        back = ask(stream, frame).words
        assert (back["adaptation"]["origin"], back["adaptation"]["frames"], back["reset"]) == ("evicted", 1, "evicted")
    assert served.metric('depthlens_adaptation_frames_total{mode="mad"}') >= 9


def test_what_is_not_saved_here_is_a_typed_error_and_the_stream_goes_on(served: Served) -> None:
    frame = sequence("fog", 6, 1)[0]
    with streaming(served.address, "task=stereo&drop=none&size=native&checkpoint=restore") as stream:
        stream.send(message(frame))
        assert stream.hear(120).code == "no_saved_state"
        assert ask(stream, frame).words["adaptation"]["frames"] == 1
