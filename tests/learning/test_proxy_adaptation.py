import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import training
from training.__main__ import main
from training.checkpoint import load_checkpoint, save_checkpoint
from training.confidence import median
from training.config import load_config
from training.data.bank import Bank, Batch
from training.data.proxy_pairs import SOURCE, ccnn_measure, labelled, proxy_readers
from training.data.stereo_pairs import layered_sequence
from training.data.transforms import warp, whole_map
from training.errors import TrainingError
from training.models import create_model
from training.models.mono_disparity import MonoDisparity
from training.proxies import Match, with_outliers
from training.proxy_page import gains, outcome_table
from training.proxy_study import WAYS, Outcome
from training.stereo_evaluation import judge_pairs
from training.tasks import make_task
from training.trainer import LAST, Run, make_sampler, train

SIZE = (64, 128)
CONFIGS = Path(training.__file__).parent / "configs"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class SoftMatcher(nn.Module):
    """A stereo network of a few thousand parameters: learned features, and the mean disparity by how they agree."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 5, padding=2), nn.LeakyReLU(0.1), nn.Conv2d(12, 12, 5, padding=2)
        )
        self.sharpness = nn.Parameter(torch.tensor(1.5))

    def encoder_parameters(self):
        return self.features.parameters()

    def groups(self):
        return []

    def forward(self, left, right):
        ours, theirs = (self.features(p.permute(0, 3, 1, 2).float() / 64) for p in (left, right))
        width = ours.shape[3]
        padded = nn.functional.pad(theirs, (23, 0))
        costs = torch.stack([(ours - padded[..., 23 - d : 23 - d + width]).abs().mean(1) for d in range(24)], 1)
        weight = torch.softmax(-costs * self.sharpness.exp(), 1)
        return (weight * torch.arange(24.0)[:, None, None]).sum(1)

    def scales(self, left, right, modular=False):
        return [self(left, right)]


@pytest.fixture
def soft(monkeypatch):
    for place in ("training.start", "training.trainer"):
        monkeypatch.setattr(f"{place}.create_model", lambda name: SoftMatcher())


def recipe(name="adapt_stereo", **changes):
    small = {
        "starts_from": {},
        "network_weights": "",
        "bf16": False,
        "confidence": "median",
        "ccnn": "",
        "warmup_steps": 1,
    }
    small |= {"smoothness_weight": 0.0, "photometric_weight": 0.0, "colour_share": 0.0, "pairs": ("noise:1",)}
    return dataclasses.replace(load_config(CONFIGS / f"{name}.yaml"), **small | changes)


@pytest.fixture(scope="module")
def worlds():
    """Pairs of a noisy domain to adapt to, and others to judge by."""
    return [[next(layered_sequence("noise", first + seed, 1)) for seed in range(6)] for first in (40, 60)]


def bank_of(frames, config):
    """Labels are the truth with outliers, so that nothing but these is wrong, and the confidence is the recipe's."""
    samples = []
    for number, frame in enumerate(frames):
        true = Match(frame.disparity_px, frame.disparity_px)
        match = with_outliers(true, 0.2, 26, np.random.default_rng(number))
        sure = median(frame.left, frame.right, match)
        sample = dataclasses.replace(frame.sample(SOURCE, frame.name), proxy_px=match.disparity_px, confidence=sure)
        samples.append(dataclasses.replace(sample, disparity_px=None))
    return Bank({SOURCE: {sample.name: [sample] for sample in samples}})


LEARN = {"lr": 0.01, "encoder_lr": 0.01, "steps": 40, "batch": 2, "validate_every": 40, "checkpoint_every": 40}


def test_adapting_helps_and_confidence_helps_more_where_a_fifth_of_the_labels_is_wrong(worlds, soft, tmp_path):
    learned, judged = worlds
    errors = {}
    for guidance, threshold in (("none", 0.5), ("fixed", 0.7)):
        config = recipe(guidance=guidance, threshold=threshold, **LEARN)
        start = judge_pairs(Run.start(config, None).average.eval(), judged)
        run = train(config, bank_of(learned, config), None, tmp_path / guidance, resume=False)
        errors[guidance] = judge_pairs(run.average.eval(), judged)
    assert errors["fixed"]["bad3"] < 0.9 * start["bad3"]
    assert errors["fixed"]["epe"] < errors["none"]["epe"]
    assert errors["fixed"]["bad3"] < errors["none"]["bad3"]


def test_a_learned_threshold_moves_is_kept_and_goes_on_but_is_not_exported(worlds, soft, tmp_path):
    config = recipe(guidance="learned", threshold=0.5, **LEARN | {"steps": 8, "threshold_lr": 0.2})
    bank = bank_of(worlds[0][:2], config)
    sampler, run = make_sampler(config, bank), Run.start(config, None)
    taus = []
    for step in range(8):
        if step == 4:
            save_checkpoint(tmp_path / LAST, run.checkpoint(config, "abc"))
            other = Run.resume(config, tmp_path / LAST)
        taus.append(run.advance(config, sampler.batch(step, 2, config.sizes))["threshold"])
    again = [other.advance(config, sampler.batch(step, 2, config.sizes))["threshold"] for step in range(4, 8)]
    assert taus[0] == pytest.approx(0.5)
    assert abs(taus[-1] - 0.5) > 0.02
    assert all(0 < tau < 1 for tau in taus)
    assert again == pytest.approx(taus[4:], abs=1e-4)
    kept = load_checkpoint(tmp_path / LAST)
    assert "guide.moved" in kept.model
    assert set(kept.ema) == set(SoftMatcher().state_dict())


def batch_of(sample):
    return Batch.of([warp(sample, whole_map(SIZE, SIZE), SIZE)])


@pytest.fixture(scope="module")
def sample(worlds):
    return labelled(worlds[0][0], "noise:40", recipe(), None)


def test_parts_of_the_loss_add_up(sample, soft):
    config = recipe(smoothness_weight=0.1, photometric_weight=0.2, guidance="fixed", threshold=0.9)
    task = make_task(config)
    parts = task.losses(task.forward(SoftMatcher()), batch_of(sample))
    total = parts["proxy"] + 0.1 * parts["smoothness"] + 0.2 * parts["photometric"]
    assert parts["loss"].item() == pytest.approx(total.item())
    assert parts["threshold"].item() == pytest.approx(0.9)
    nothing = dataclasses.replace(sample, confidence=np.zeros(SIZE, np.float32))
    assert task.losses(task.forward(SoftMatcher()), batch_of(nothing))["proxy"].item() == 0


@pytest.mark.parametrize("model", ["madnet", "dispnetc"])
def test_both_stereo_networks_learn_from_labels(model, sample):
    torch.manual_seed(0)
    network = create_model(model)
    task = make_task(recipe(model=model, guidance="learned", threshold=0.5, photometric_weight=0.1))
    task.losses(task.forward(network), batch_of(sample))["loss"].backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not missing
    assert network.guide.moved.grad != 0


def test_what_monocular_networks_say_as_disparity_by_hand():
    class Says(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, image):
            return self.value.expand(image.shape[:3])

    image = torch.zeros(1, 4, 40, 3, dtype=torch.uint8)
    half = MonoDisparity(Says(torch.tensor(0.5)), 0.3)
    assert half(image)[0, 0, 0].item() == pytest.approx(0.3 * 40 * 0.5)
    metric = Says(torch.tensor(5.0))
    metric.output = "depth_m"
    assert MonoDisparity(metric, 0.5)(image)[0, 0, 0].item() == pytest.approx(0.5 * 40 / 5)
    # it says how far right a pixel is, as it sees it: both looks differ by mirroring
    ramp = MonoDisparity(Says(torch.arange(40.0)), 1 / 40)
    found = ramp.both_ways(image)[0, 0]
    assert found[20].item() == pytest.approx(19.5)  # the mean of 20 and 19
    assert found[0].item() == pytest.approx(39)  # at the left side the mirrored look alone
    assert found[39].item() == pytest.approx(39)


def test_a_monocular_network_adapts_to_pairs(worlds):
    rates = {"lr": 0.001, "encoder_lr": 0.0002, "steps": 20}
    whole = {"sizes": (SIZE,), "final_sizes": (SIZE,), "network_weights": "focus_on_depth.safetensors"}
    config = recipe("adapt_mono", guidance="fixed", threshold=0.5, **whole, **LEARN | rates)
    bank = bank_of(worlds[0][:4], config)
    task, sampler, run = make_task(config), make_sampler(config, bank), Run.start(config, None)
    learned, unseen = ([frame.sample(SOURCE, frame.name) for frame in of] for of in (worlds[0][:4], worlds[1]))
    kept = {name: value.clone() for name, value in run.network.named_buffers()}
    before = [task.metrics(run.average.eval(), samples)["epe"] for samples in (learned, unseen)]
    for step in range(20):
        run.advance(config, sampler.batch(step, 2, config.sizes))
    # as it is judged and exported, the statistics of its batch norm those that it came with
    after = [task.metrics(run.average.eval(), samples)["epe"] for samples in (learned, unseen)]
    assert all(new < 0.25 * old for old, new in zip(before, after, strict=True))
    flat = [np.abs(sample.disparity_px - np.median(sample.disparity_px)).mean() for sample in unseen]
    assert after[1] < np.mean(flat)  # each picture's own best constant, which no scale alone can beat
    assert all(torch.equal(kept[name], value) for name, value in run.network.named_buffers())
    assert task.panel(run.network.eval(), learned[0]).shape == (64, 3 * 128, 3)


def test_pairs_without_truth_are_judged_by_labels_that_are_trusted(sample):
    class Flat(SoftMatcher):
        def forward(self, left, right):
            return torch.full(left.shape[:3], 4.0)

    labels, sure = np.full(SIZE, 6, np.float32), np.zeros(SIZE, np.float32)
    labels[0, :2], sure[0, :3] = 12, (0.5, 0.9, 0.2)
    given = dataclasses.replace(sample, disparity_px=None, proxy_px=labels, confidence=sure)
    found = make_task(recipe()).metrics(Flat(), [given])
    assert found == {"epe": pytest.approx(8), "bad3": 1.0, "d1": 1.0}
    assert make_task(recipe()).metrics(Flat(), []) == {}


@pytest.fixture
def folder(tmp_path, worlds):
    for side in ("left", "right"):
        (tmp_path / "seq" / side).mkdir(parents=True)
        for number, frame in enumerate(worlds[0][:3]):
            picture = getattr(frame, side)[..., ::-1]
            cv2.imwrite(str(tmp_path / "seq" / side / f"{number:03d}.png"), picture)
    return tmp_path / "seq"


def test_a_folder_of_pairs_needs_no_truth(folder):
    config = recipe(pairs=(str(folder),), frames=2, matcher="ad_census", confidence="left_right")
    samples = [read() for _, read in proxy_readers(config)]
    assert [sample.name for sample in samples] == ["000", "001"]
    for sample in samples:
        assert sample.disparity_px is None
        assert sample.proxy_px.shape == sample.confidence.shape == sample.image.shape[:2]
        assert 0.3 < (sample.confidence >= 0.5).mean() < 1
        assert sample.scene == f"{folder}/0"


def test_labels_are_the_same_again_and_outliers_follow_the_seed(folder):
    def labels(**changes):
        config = recipe(pairs=(str(folder),), frames=1, outliers=0.2, **changes)
        return next(read() for _, read in proxy_readers(config)).proxy_px

    assert (labels() == labels()).all()
    assert (labels() != labels(seed=2)).mean() > 0.1


def test_views_of_labels_are_in_pixels_of_the_view(sample):
    item = warp(sample, whole_map(SIZE, (32, 64)), (32, 64))
    known = item.proxy_px > 0
    assert np.median(item.proxy_px[known]) == pytest.approx(
        np.median(sample.proxy_px[sample.proxy_px > 0]) / 2, rel=0.1
    )
    assert set(np.unique(item.confidence)) <= {0.0, 1.0}


def test_what_cannot_be_used_is_one_line(tmp_path, capsys):
    with pytest.raises(TrainingError, match="neither a folder nor DOMAIN:SEED"):
        list(proxy_readers(recipe(pairs=("dawn:1",))))
    with pytest.raises(TrainingError, match="checkpoint not found"):
        list(proxy_readers(recipe(confidence="ccnn", ccnn=str(tmp_path / "none.pt"))))
    with pytest.raises(TrainingError, match="threshold is 1"):
        recipe(threshold=1.0)
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "--config", str(CONFIGS / "adapt_mono.yaml"), "--set", "pairs=[]", *out]) == 1
    assert capsys.readouterr().err.startswith("error: pairs needs an entry")
    assert main(["proxies", "--sequence", "clean:1", "--frames", "0"]) == 1
    assert "--frames is 0" in capsys.readouterr().err


def test_the_commands_train_a_confidence_and_judge_labels_by_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.stereo_evaluation.SEQUENCE_SIZE", SIZE)
    run, picture = tmp_path / "ccnn", tmp_path / "labels.png"
    few = ["steps=2", "pairs=['clean:1-4']", "batch=1", "validate_every=2", "checkpoint_every=2"]
    changes = [word for change in few for word in ("--set", change)]
    recipe_file = str(CONFIGS / "confidence_ccnn.yaml")
    assert main(["train", "--config", recipe_file, *changes, "--out", str(run), "--threads", "1"]) == 0
    assert math.isfinite(load_checkpoint(run / LAST).step)
    judge = ["proxies", "--sequence", "night:3", "--frames", "1", "--ccnn", str(run / LAST), "--out", str(picture)]
    capsys.readouterr()
    assert main(judge) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| labels | density | wrong | optimal area | left_right | uniqueness |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| sgm", "| ad_census"]
    assert cv2.imread(str(picture)).shape[1] == 4 * (2 * SIZE[1] + 4)
    with pytest.raises(TrainingError, match="no confidence network"):
        ccnn_measure(_other(tmp_path))


def _other(folder):
    config = recipe(model="focus_on_depth_tiny")
    save_checkpoint(folder / "other.pt", Run.start(config, None).checkpoint(config, "abc"))
    return folder / "other.pt"


def test_ways_are_compared_world_by_world():
    def outcome(way, seed, *epes):
        worlds = {f"dusk_{number}": epe for number, epe in enumerate(epes)}
        return Outcome("sgm", way, seed, float(np.mean(epes)), 0.1, 0.1, 0.5, worlds)

    plain, guided = WAYS[0].name, WAYS[2].name
    outcomes = [
        outcome(plain, 1, 2.0, 4.0),
        outcome(plain, 2, 3.0, 5.0),
        outcome(guided, 1, 1.5, 4.0),
        outcome(guided, 2, 2.0, 5.5),
        outcome(guided, 3, 0.0, 0.0),  # nothing to compare with
    ]
    np.testing.assert_allclose(gains(outcomes[:2], outcomes[2:]), [0.75, -0.25])  # means of 0.5 and 1, 0 and -0.5
    line = outcome_table({"epe": 9.0, "bad3": 0.5}, outcomes).splitlines()[-1]
    assert line.startswith(f"| sgm | {guided} |")
    assert "| +0.250 ± 0.500 | 1 of 2 |" in line  # deviation of 0.75 and -0.25 is 0.707, by the root of 2
