"""The transformer of FocusOnDepth learns eight rendered pictures by heart: encoder, decoder, losses and step fit."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from training.config import TrainConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.data.synthetic.assets import load_library
from training.data.synthetic.generator import render_scene
from training.data.synthetic.people import Cast
from training.data.transforms import warp, whole_map
from training.evaluation import evaluate, predictor
from training.models.focus_on_depth import Served
from training.trainer import Run

SIZE = (96, 128)
SEEDS = (1, 6, 16, 19, 20, 22, 26, 32)
"""Scenes with somebody on at least 3 % of the picture."""
STEPS = 200


@pytest.fixture(scope="module")
def eight() -> list[Sample]:
    library = load_library(None, (), ())
    cast = Cast(library.characters)
    samples = []
    for seed in SEEDS:
        scene = render_scene(seed, library, cast, SIZE)
        inverse = np.maximum(scene.view.inverse_depth, 1 / 500).astype(np.float32)
        person = np.where(scene.view.person == 127, 128, scene.view.person).astype(np.uint8)
        samples.append(Sample(str(seed), "synthetic_cc0", str(seed), scene.image, inverse, person, shift_known=True))
    return samples


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same sums whatever the machine's cores, and no threads that wait for one another on a busy one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_eight_show_people(eight):
    assert all((sample.person > 127).mean() > 0.03 for sample in eight)


@pytest.mark.timeout(900)
def test_vit_tiny_overfits_eight_pictures(tiny: TrainConfig, eight, one_thread):
    config = dataclasses.replace(
        tiny,
        model="focus_on_depth_vit_tiny",
        steps=STEPS,
        final_steps=0,
        warmup_steps=10,
        lr=3e-3,
        encoder_lr=1e-3,
        weight_decay=0.0,
        person_weight=4.0,
        dice_weight=2.0,
    )
    batch = Batch.of([warp(sample, whole_map(SIZE, SIZE), SIZE) for sample in eight])
    run = Run.start(config, None)
    calls = {"encoder": 0, "blocks": 0}
    run.network.encoder.register_forward_hook(lambda *_: calls.update(encoder=calls["encoder"] + 1))
    run.network.encoder.body.blocks[0].register_forward_hook(lambda *_: calls.update(blocks=calls["blocks"] + 1))
    losses = [run.advance(config, batch)["loss"] for _ in range(STEPS)]
    assert calls == {"encoder": STEPS, "blocks": STEPS}
    assert losses[-1] < 0.2 * losses[0]

    table = evaluate(predictor(Served(run.network), SIZE), eight)["synthetic_cc0"]
    assert table["iou"] > 0.9
    assert table["worst_polarity"] > 0.8
    assert torch.isfinite(torch.tensor(losses)).all()
