import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.data.sample import Sample
from training.errors import TrainingError
from training.evaluation import (
    BASELINES,
    STEP_8BIT,
    Score,
    constant,
    evaluate,
    judge,
    letterboxed,
    lower_half,
    score,
    summarise,
    vertical_gradient,
)
from training.labelling import Votes
from training.report import Entry, document, metrics_of
from training.tables import BEGIN, END, markdown, write_tables
from training.teachers import METERS, depth_teachers, meter_predictor, person_teachers, split_votes


def perfect(sample):
    return lambda image: (sample.inverse_depth, (sample.person == 255).astype(np.float32))


def test_a_perfect_prediction(sample_of):
    sample = sample_of(1)
    row = evaluate(perfect(sample), [sample], boundaries=True)["rooms"]
    assert row["pictures"] == row["right_polarity"] == row["iou"] == 1
    assert row["delta1"] == row["worst_delta1"] == 1
    assert row["polarity"] == row["worst_polarity"] == pytest.approx(1)
    assert row["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert row["boundary_f1"] == row["boundary_f1_strict"] == pytest.approx(1)


def test_boundaries_are_judged_only_when_asked_for(sample_of):
    sample = sample_of(1)
    assert "boundary_f1" not in evaluate(perfect(sample), [sample])["rooms"]


def test_baselines_look_at_nothing():
    image = np.zeros((4, 3, 3), np.uint8)
    assert constant(image)[0].tolist() == [[1, 1, 1]] * 4
    assert vertical_gradient(image)[0][:, 0] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert lower_half(image)[0][:, 2] == pytest.approx([0, 0, 1 / 6, 1 / 2])
    for predict in BASELINES.values():
        inverse, person = predict(image)
        assert inverse.shape == person.shape == (4, 3)
        assert not person.any()


def of_source(source, delta1=0.0, polarity=1.0, **more):
    return Score("a", source, {"delta1": delta1, "polarity": polarity} | more)


def test_real_sources_are_averaged_with_equal_weight_and_rendered_ones_apart():
    scores = [of_source("nyu", 0.5), of_source("nyu", 0.7), of_source("tum", 0.2, -0.5), of_source("sceneflow", 1.0)]
    table = summarise(scores)
    assert table["nyu"]["delta1"] == pytest.approx(0.6)
    assert table["real"]["delta1"] == pytest.approx((0.6 + 0.2) / 2)
    assert table["rendered"]["delta1"] == 1
    assert table["all"]["delta1"] == pytest.approx((0.6 + 0.2 + 1) / 3)
    assert [table["all"][name] for name in ("pictures", "right_polarity")] == [4, 3]
    assert [table["real"][name] for name in ("worst_delta1", "worst_polarity")] == [0.2, -0.5]


def test_a_metric_that_is_not_defined_for_a_source_is_left_out_of_the_mean():
    table = summarise([of_source("nyu", boundary_f1=0.5), of_source("kitti_obj")])
    assert "boundary_f1" not in table["kitti_obj"]
    assert table["real"]["boundary_f1"] == 0.5


def test_nothing_judged_is_an_empty_mean():
    assert summarise([]) == {"all": {"pictures": 0}}


def test_8_bit_truth_is_judged_where_its_steps_are_fine_enough():
    # at the far end one step is a factor of two: a prediction half a step off would fail there
    stored = np.repeat(np.arange(1, 65)[None], 64, axis=0)
    sample = Sample("a", "page", "a", np.zeros((64, 64, 3), np.uint8), (stored / np.float32(255)).astype(np.float32))
    prediction = ((stored - 0.5) / 255).astype(np.float32), np.zeros((64, 64), np.float32)
    prediction[0][:, :15] = 0.0  # far pixels, not judged
    assert score(sample, prediction, step=STEP_8BIT).values["delta1"] == 1
    assert score(sample, prediction).values["delta1"] < 1


def test_8_bit_truth_has_no_contours_among_its_far_steps_but_one_against_the_sky():
    stored = np.full((96, 128), 100)
    stored[:48] = 1 + np.arange(128) % 6 * 2
    sample = Sample("a", "page", "a", np.zeros((96, 128, 3), np.uint8), (stored / np.float32(255)).astype(np.float32))
    flat_sky = (stored > 50).astype(np.float32), np.zeros((96, 128), np.float32)
    assert score(sample, flat_sky, boundaries=True, step=STEP_8BIT).values["boundary_f1"] == pytest.approx(1)
    assert score(sample, flat_sky, boundaries=True).values["boundary_f1"] < 0.5


def test_where_masks_show_one_person_somebody_apart_is_judged_both_ways():
    mask, found = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.float32)
    mask[10:40, 10:20] = 255  # 300 pixels
    found[10:40, 10:22] = 1  # 60 more that touch
    found[10:40, 40:50] = 1  # 300 more of somebody behind
    for source, expected in (("ccp", {"iou": 300 / 660, "labelled_iou": 300 / 360}), ("camvid", {"iou": 300 / 660})):
        sample = Sample("a", source, "a", np.zeros((64, 64, 3), np.uint8), person=mask)
        assert score(sample, (found, found)).values == pytest.approx(expected)


def test_nobody_found_is_nobody_touching():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 10:20] = 255
    nobody = np.zeros((64, 64), np.float32)
    values = score(Sample("a", "ccp", "a", np.zeros((64, 64, 3), np.uint8), person=mask), (nobody, nobody)).values
    assert values == {"iou": 0, "labelled_iou": 0}


def test_a_network_runs_at_the_size_asked_for():
    seen = []

    def runtime(image):
        seen.append(image.shape)
        return np.zeros(image.shape[:3], np.float32), np.zeros(image.shape[:3], np.float32)

    image = np.zeros((90, 120, 3), np.uint8)
    for size, edges in ((None, "raw"), ((64, 96), "raw"), ((64, 96), "sharp")):
        inverse, person = letterboxed(runtime, size, edges)(image)
        assert inverse.shape == person.shape == (90, 120)
    assert seen == [(1, 288, 384, 3), (1, 64, 96, 3), (1, 64, 96, 3)]


def test_sharp_edges_follow_the_photo():
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, 150:] = 220

    def runtime(batch):
        columns = np.arange(batch.shape[2], dtype=np.float32) / batch.shape[2] * 320
        depth = 1 + 1 / (1 + np.exp(-(columns - 150) / 5))  # soft, at the right place
        person = 1 / (1 + np.exp(-(columns - 146) / 5))  # soft, and four pixels too wide
        return tuple(np.broadcast_to(values, batch.shape[:3]).astype(np.float32) for values in (depth, person))

    truth = np.where(np.arange(320) < 150, 1.0, 2.0) * np.ones((240, 1))
    mask = np.where(truth > 1.5, np.uint8(255), np.uint8(0))
    sample = Sample("a", "a", "a", image, truth.astype(np.float32), mask)
    raw, sharp = (
        evaluate(letterboxed(runtime, (96, 128), edges), [sample], boundaries=True)["a"] for edges in ("raw", "sharp")
    )
    assert sharp["boundary_f1_strict"] > raw["boundary_f1_strict"]
    assert sharp["iou"] > raw["iou"]


def test_votes_are_asked_for_once_a_picture(sample_of):
    asked = []

    def teachers(image):
        asked.append(image)
        no = np.zeros(image.shape[:2], bool)
        return Votes(~no, no, no)

    samples = [sample_of(seed) for seed in range(2)]
    found = judge(split_votes(teachers), samples)
    assert len(asked) == 2
    assert list(found) == ["DeepLabV3", "BodyPix", "selfie"]
    assert found["BodyPix"][0].values["iou"] == 0
    assert 0 < found["DeepLabV3"][0].values["iou"] < 0.2


def test_missing_teachers_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"teacher weights not found: .*meter_xxs_kitti\.onnx"):
        depth_teachers(tmp_path, 1)
    with pytest.raises(TrainingError, match="teacher weights not found"):
        person_teachers(tmp_path)


@pytest.mark.shared
def test_a_metric_teacher_sees_the_road_nearer_than_the_horizon(shared):
    from training.data.truth import depth_truth

    drive = next(s for s in depth_truth(shared / "data") if s.source == "kitti_demo")
    row = evaluate(meter_predictor(METERS["METER-KITTI"], shared / "weights", 1), [drive])["kitti_demo"]
    assert row["delta1"] > 0.8
    assert row["polarity"] > 0.9


@pytest.fixture
def entries(sample_of) -> list[Entry]:
    samples = [sample_of(1, source="nyu"), sample_of(2, source="sceneflow")]
    ours = Entry("mine", {"checkpoint_sha256": "abc", "step": 7}, vertical_gradient, vertical_gradient)
    peer = Entry("constant", {}, constant)
    for entry in (ours, peer):
        scores = judge({"it": entry.predictor}, samples, boundaries=True)["it"]
        entry.tables = {"depth": summarise(scores)} | ({"depth_sharp": summarise(scores)} if entry.sharp else {})
        entry.pictures = scores
    ours.tables["person"] = ours.tables["person_sharp"] = summarise(judge({"it": ours.predictor}, samples)["it"])
    return [ours, peer]


def test_export_finds_its_checkpoint_in_the_report(entries):
    found = json.loads(json.dumps(document(entries, (288, 384))))
    assert found["size"] == [288, 384]
    assert [entry["name"] for entry in found["peers"]] == ["constant"]
    assert found["networks"][0]["pictures"]["nyu/1"]["delta1"] > 0
    metrics = metrics_of(found, "abc")
    assert list(metrics) == ["step", "depth", "depth_sharp", "person", "person_sharp"]
    assert metrics["depth"]["all"]["delta1"] == entries[0].tables["depth"]["all"]["delta1"]
    for other in (found | {"networks": []}, {}, [], 3):
        assert metrics_of(other, "abc") is None
    assert metrics_of(found, "def") is None


def test_tables_have_a_row_for_each_source_and_a_column_for_each_judged(entries):
    text = markdown(entries)
    lines = text.splitlines()
    start = lines.index("### delta1 (higher is better)")
    assert lines[start + 1] == "| source | pictures | mine | constant |"
    rows = [line.split(" | ")[0].strip("| ") for line in lines[start + 3 : start + 8]]
    assert rows == ["nyu", "sceneflow", "**mean, real**", "**mean, rendered**", "**mean, all**"]
    assert "mine, edges=sharp" in text
    start = lines.index("### Person IoU (higher is better)")
    assert lines[start + 1] == "| source | pictures | mine | mine, edges=sharp |"
    assert "### Pairs of `rgbd`" not in text
    assert "| mine | nyu/1 | " in text


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path):
    page = tmp_path / "docs" / "page.md"
    write_tables("one\n", page)
    page.write_text(f"# Before\n{page.read_text()}after\n")
    write_tables("two\n", page)
    assert page.read_text() == f"# Before\n{BEGIN}\ntwo\n{END}\nafter\n"
    page.write_text("written by hand")
    with pytest.raises(TrainingError, match=r"page\.md has no lines"):
        write_tables("three\n", page)
    assert page.read_text() == "written by hand"


@pytest.fixture
def truth_folder(data_folder):
    """The data folder with one measured depth map, and one person mask for judging."""
    folder = data_folder / "truth_depth"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((96, 128, 3), np.uint8))
    cv2.imwrite(str(folder / "a.png"), np.repeat(np.linspace(9000, 1000, 96)[:, None], 128, 1).astype(np.uint16))
    entry = {"rgb": "truth_depth/a.jpg", "gt": "truth_depth/a.png", "kind": "depth", "unit": 0.001, "set": "nyu"}
    (folder / "index.json").write_text(json.dumps([entry]))
    mask = {"rgb": "truth_person/humanseg/1.jpg", "mask": "truth_person/humanseg/1_mask.png", "set": "ccp"}
    (data_folder / "truth_person" / "index.json").write_text(json.dumps([mask]))
    return data_folder


def test_the_command_judges_checkpoints_side_by_side(tiny, truth_folder, tmp_path, capsys):
    from training.checkpoint import save_checkpoint
    from training.export import file_sha256
    from training.trainer import Run

    arguments = ["evaluate", "--threads", "1", "--data", str(truth_folder)]
    arguments += ["--rgbd", "wildrgbd_page", "--rgbd", "synth_room"]
    for name in ("one", "two"):
        path = tmp_path / name / "last.pt"
        save_checkpoint(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
        arguments += ["--checkpoint", str(path)]
    out, page = tmp_path / "metrics.json", tmp_path / "page.md"
    assert main([*arguments, "--size", "64x96", "--out", str(out), "--table", str(page)]) == 0
    printed = capsys.readouterr()
    assert "| source | pictures | one | two | constant | y | max(0, y - 1/2) |" in printed.out
    assert "left out: " in printed.err
    assert "w00_0002.jpg" in printed.err
    assert printed.out.strip() in page.read_text()
    found = json.loads(out.read_text())
    assert [entry["name"] for entry in found["networks"]] == ["one", "two"]
    metrics = metrics_of(found, file_sha256(tmp_path / "two" / "last.pt"))
    assert set(metrics["depth"]) == {"nyu", "real", "all"}
    assert metrics["person"]["ccp"]["pictures"] == 1
    assert metrics["rgbd"]["wildrgbd_page"]["pictures"] == 2
    assert found["peers"][1]["name"] == "y"
    assert found["peers"][1]["depth"]["nyu"]["right_polarity"] == 1


def test_a_set_that_was_trained_on_is_judged_on_its_held_out_scenes_only():
    from training.report import _of_set

    scores = [Score(name, "page", {"delta1": 0.5, "polarity": 1.0}) for name in ("seen", "unseen")]
    unknown, trained = (
        Entry("a", {}, constant, trained_on=frozenset(sources)) for sources in ((), ("page", "other_page"))
    )
    rows = _of_set("page", scores, {"unseen"}, unknown)
    assert {name: row["pictures"] for name, row in rows.items()} == {"page": 2, "page/held out": 1}
    assert list(_of_set("page", scores, {"unseen"}, trained)) == ["page/held out"]
    assert _of_set("page", scores, set(), trained) == {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nothing to judge; give --checkpoint or --onnx"),
        (["--onnx", "none.onnx"], "ONNX file not found: none.onnx"),
        (["--checkpoint", "none.pt"], "checkpoint not found: none.pt"),
    ],
)
def test_nothing_to_judge_is_one_line(more, message, tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path), *more]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("size", ["288", "288x", "288x385", "0x384", "-32x32"])
def test_a_size_the_network_cannot_take_is_refused(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--data", str(tmp_path), "--size", size])
    assert "HxW" in capsys.readouterr().err
