import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch

from training.__main__ import main
from training.checkpoint import load_checkpoint
from training.data.bank import fill, readers
from training.data.sample import BrokenSampleError
from training.data.taught import SUFFIX, attach_depth, describe, encode
from training.errors import TrainingError
from training.evaluation import predictor
from training.export import served_network
from training.lessons import batch_teacher
from training.teaching import ask_service, depth_teacher, label_depth
from training.trainer import LAST, train

SCALE, OFFSET = 0.0001, 0.25


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


class Service:
    """Answers `POST /depth` as Depthlens does: rows from far to near, offset and scale in the headers."""

    def __init__(self):
        self.asked: list[tuple[str, str, bytes]] = []
        self.status = 200
        self.headers = {"X-Depth-Kind": "relative-inverse", "X-Depth-Scale": str(SCALE), "X-Depth-Offset": str(OFFSET)}
        self.body: bytes | None = None

    def answer(self, path: str, kind: str, photo: bytes) -> bytes:
        self.asked.append((path, kind, photo))
        if self.body is not None:
            return self.body
        height, width = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        return png(np.repeat(np.linspace(0, 65535, height)[:, None], width, 1).round().astype(np.uint16))


@contextmanager
def listening(service: Service) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            photo = self.rfile.read(int(self.headers["Content-Length"]))
            body = service.answer(self.path, self.headers["Content-Type"], photo)
            self.send_response(service.status)
            for name, value in service.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def url(service):
    with listening(service) as address:
        yield address


@pytest.fixture
def photo(data_folder):
    return data_folder / "photos" / "imagenet" / "cat.jpg"


def test_the_command_labels_photos_by_a_service_and_training_reads_them(url, service, data_folder, tmp_path, capsys):
    labels = tmp_path / "labels"
    torn = data_folder / "photos" / "azure" / "torn.jpg"
    torn.parent.mkdir()
    torn.write_bytes(b"")
    arguments = ["label", "--data", str(data_folder), "--depth", url + "/", "--out", str(labels)]
    service.body = b"refused"
    service.status = 422
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "depth: {'labelled': 0, 'kept': 0, 'broken': 2}" in printed.out
    assert f"left out {torn}: {torn}: not a readable picture" in printed.err
    assert f"cat.jpg: {url} answered 422" in printed.err
    service.body, service.status, service.asked = None, 200, []
    torn.unlink()
    assert main(arguments) == 0
    assert "depth: {'labelled': 1, 'kept': 0, 'broken': 0}" in capsys.readouterr().out
    # only photos for training, each as it is
    ((path, kind, body),) = service.asked
    assert (path, kind) == ("/depth?format=png16", "image/jpeg")
    assert body == (data_folder / "photos" / "imagenet" / "cat.jpg").read_bytes()
    assert main(arguments) == 0
    assert "'kept': 1" in capsys.readouterr().out

    bank = fill(readers(data_folder, labels), progress=False)
    found = [s for scenes in bank.train.values() for samples in scenes.values() for s in samples] + bank.held_out
    (cat,) = [s for s in found if s.name == "photos/imagenet/cat"]
    assert cat.person is None
    assert not cat.shift_known  # relative depth of a network: its zero is anywhere
    values = np.linspace(OFFSET, 65535 * SCALE + OFFSET, 96)
    assert cat.inverse_depth[:, 0] == pytest.approx(values / values.max(), abs=1e-4)


def test_a_service_answers_in_the_values_of_its_network(url, photo):
    values = ask_service(url, photo.read_bytes())
    assert values.shape == (96, 128)
    assert values.dtype == np.float32
    assert values[0] == pytest.approx(OFFSET)
    assert values[-1] == pytest.approx(65535 * SCALE + OFFSET)


def test_a_service_teaches_the_views_of_a_batch(url, service):
    image = torch.randint(0, 256, (2, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    teacher = batch_teacher(f"{url}/", None)
    lesson = teacher(image)
    assert lesson.features == []
    assert lesson.inverse_depth[:, 0, 0].tolist() == pytest.approx([OFFSET] * 2)
    assert [(path, kind) for path, kind, _ in service.asked] == [("/depth?format=png16", "image/png")] * 2
    sent = cv2.imdecode(np.frombuffer(service.asked[1][2], np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(sent[..., ::-1], image[1].numpy())
    # an answer of another size is a picture that teaches nothing, as is one that the service refuses
    service.body = png(np.full((4, 4), 9, np.uint16))
    assert not teacher(image).inverse_depth.any()
    service.status = 422
    assert not teacher(image).inverse_depth.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": 404}, "answered 404; expected what POST /depth of a Depthlens service answers: a 16-bit PNG"),
        ({"status": 503}, "answered 503"),
        ({"headers": {}}, "does not say its scale and offset"),
        ({"body": b"<html>"}, "answered no picture"),
        ({"body": b""}, "answered no picture"),
        ({"body": png(np.zeros((4, 4), np.uint8))}, r"answered uint8 \(4, 4\), relative-inverse; expected"),
        ({"body": png(np.zeros((4, 4, 3), np.uint16))}, r"answered uint16 \(4, 4, 3\)"),
        (
            {"headers": {"X-Depth-Kind": "metric", "X-Depth-Scale": "1", "X-Depth-Offset": "0"}},
            r"answered uint16 \(96, 128\), metric; expected",
        ),
    ],
)
def test_other_answers_stop_the_run_and_say_what_is_expected(
    url, service, photo, data_folder, tmp_path, change, message
):
    vars(service).update(change)
    with pytest.raises(TrainingError, match=f"depth teacher {url} {message}") as caught:
        label_depth([photo], data_folder, depth_teacher(url, None, 1), tmp_path / "labels")
    assert not isinstance(caught.value, BrokenSampleError)
    assert "\n" not in str(caught.value)


def test_an_answer_of_another_size_is_a_broken_label(url, service, photo, data_folder, tmp_path, capsys):
    service.body = png(np.full((4, 4), 9, np.uint16))
    labels = tmp_path / "labels"
    assert label_depth([photo], data_folder, depth_teacher(url, None, 1), labels)["broken"] == 1
    assert f"left out {photo}: depth of (4, 4) for a photo of (96, 128)" in capsys.readouterr().err
    assert not list(labels.rglob(f"*{SUFFIX}"))


def test_nobody_listening_is_one_line(service, photo, data_folder, tmp_path, capsys):
    with listening(service) as gone:
        pass
    arguments = ["label", "--data", str(data_folder), "--depth", gone, "--out", str(tmp_path / "labels")]
    assert main(arguments) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: depth teacher {gone} does not answer: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--depth", "midas"],
            "give meter_kitti, meter_nyu, a checkpoint's .pt file or the http:// address",
        ),
        (
            ["--depth", "meter_nyu"],
            "the teacher meter_nyu is a file, meter_xxs_nyu.onnx; give its folder with --weights",
        ),
        (["--depth", "meter_kitti", "--weights", "nowhere"], "teacher weights not found: nowhere/meter_xxs_kitti.onnx"),
        ([], "people are labelled by teachers of the weights folder; give it with --weights"),
    ],
)
def test_teachers_that_are_not_there_are_one_line(arguments, message, data_folder, tmp_path, capsys):
    assert main(["label", "--data", str(data_folder), "--out", str(tmp_path / "labels"), *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_a_folder_keeps_to_one_teacher(tmp_path):
    describe(tmp_path, "meter_nyu", True)
    describe(tmp_path, "meter_nyu", True)
    with pytest.raises(TrainingError, match=r"depth\.json names the teacher meter_nyu; label into another --out"):
        describe(tmp_path, "meter_kitti", True)


def test_stored_depth_by_hand():
    stored = encode(np.array([[0.0, 0.5, 2.0, -1.0]], np.float32))
    # nothing that the teacher has seen is stored as "none"
    assert stored.tolist() == [[1, 16384, 65535, 1]]
    for useless in (
        np.zeros((2, 2), np.float32),
        np.array([[np.nan, 1]], np.float32),
        np.array([[np.inf]], np.float32),
    ):
        with pytest.raises(BrokenSampleError, match="expected finite values, some above 0"):
            encode(useless)


def test_truth_comes_before_what_a_teacher_says(tmp_path, sample_of):
    sample = sample_of(0)
    path = tmp_path / f"{sample.name}{SUFFIX}"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((96, 128), 7, np.uint16))
    describe(tmp_path, "meter_nyu", True)
    assert attach_depth(sample, tmp_path) is sample
    bare = type(sample)(sample.name, sample.source, sample.scene, sample.image)
    assert attach_depth(bare, None) is bare
    taught = attach_depth(bare, tmp_path)
    assert taught.shift_known
    assert taught.inverse_depth == pytest.approx(7 / 65535)

    cv2.imwrite(str(path), np.full((96, 128), 7, np.uint8))
    with pytest.raises(BrokenSampleError, match=r"uint8 \(96, 128\), its photo \(96, 128\)"):
        attach_depth(bare, tmp_path)
    cv2.imwrite(str(path), np.full((9, 9), 7, np.uint16))
    with pytest.raises(BrokenSampleError, match=r"uint16 \(9, 9\), its photo"):
        attach_depth(bare, tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"teacher": "x"})])
def test_depth_labels_of_an_unknown_teacher_are_refused(tmp_path, sample_of, content):
    sample = sample_of(0)
    bare = type(sample)(sample.name, sample.source, sample.scene, sample.image)
    path = tmp_path / f"{sample.name}{SUFFIX}"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((96, 128), 7, np.uint16))
    if content is not None:
        (tmp_path / "depth.json").write_text(content)
    with pytest.raises(TrainingError, match=r"depth\.json: "):
        attach_depth(bare, tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["meter_kitti", "meter_nyu"])
def test_a_metric_network_labels_real_photos(name, shared, tmp_path):
    root = shared / "data"
    photos = sorted((root / "photos" / "jetson").glob("*.jpg"))[:2]
    assert label_depth(photos, root, depth_teacher(name, shared / "weights", 1), tmp_path)["labelled"] == 2
    for photo in photos:
        stored = cv2.imread(str((tmp_path / photo.relative_to(root)).with_suffix(SUFFIX)), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16
        assert stored.shape == cv2.imread(str(photo)).shape[:2]
        assert stored.max() == 65535
        assert stored.min() >= 1
        # metres through and through: the nearest is not a thousand times nearer than the farthest
        assert 65535 / stored.min() < 1000
    assert json.loads((tmp_path / "depth.json").read_text()) == {"teacher": name, "shift_known": True}


def test_a_checkpoint_labels_with_the_mean_of_five_sizes_and_their_mirror_images(tiny, bank, sample_of, tmp_path):
    train(dataclasses.replace(tiny, steps=1, final_steps=0), bank, None, tmp_path / "run", resume=False)
    checkpoint = tmp_path / "run" / LAST
    teacher = depth_teacher(str(checkpoint), None, 1)
    assert not teacher.shift_known
    image = sample_of(0).image
    seen = teacher.see(tmp_path, image)
    assert seen.shape == image.shape[:2]
    mirrored = teacher.see(tmp_path, np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    np.testing.assert_allclose(seen, mirrored, rtol=1e-4)
    alone = predictor(served_network(load_checkpoint(checkpoint)))(image)[0]
    assert np.abs(seen - alone).max() > 1e-3 * alone.max()


def test_no_checkpoint_is_said_in_one_line(tmp_path, capsys):
    asked = ["label", "--data", str(tmp_path), "--depth", str(tmp_path / "none.pt"), "--out", str(tmp_path / "labels")]
    assert main(asked) == 1
    assert "none.pt" in capsys.readouterr().err
