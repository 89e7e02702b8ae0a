import pickle
import socket
import subprocess
import sys
import textwrap

import pytest
import torch

from training.config import parse_config
from training.data.bank import Sampler
from training.data.transforms import Augmentation
from training.distributed import share
from training.trainer import Run

WORKER = textwrap.dedent(
    """
    import os, pickle, sys
    import torch
    from training.config import parse_config
    from training.data.bank import Sampler
    from training.data.transforms import Augmentation
    from training.distributed import processes, rank, world_size
    from training.trainer import Run

    torch.set_num_threads(1)
    folder = sys.argv[1]
    with open(f"{folder}/task.pickle", "rb") as file:
        values, bank = pickle.load(file)
    config = parse_config(values, "task")
    with processes("cpu"):
        run = Run.start(config, None)
        run.network.train()
        sampler = Sampler(bank, config.sources, config.seed, Augmentation(), 0.0)
        batch = sampler.batch(0, config.batch, config.sizes, rank(), world_size())
        run.task.losses(run.parallel, batch)["loss"].backward()
        if rank() == 0:
            torch.save(
                {
                    "gradients": {name: p.grad for name, p in run.network.named_parameters()},
                    "buffers": dict(run.network.named_buffers()),
                    "pictures": len(batch.image),
                },
                f"{folder}/result.pt",
            )
    """
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_give_the_gradients_of_one(tiny_values, bank, tmp_path):
    # one source without person labels, so that the two halves of the batch differ in what they count
    bare = {
        scene: [type(s)(s.name, s.source, s.scene, s.image, s.inverse_depth) for s in samples]
        for scene, samples in bank.train["rooms"].items()
    }
    bank.train["bare"] = bare
    values = tiny_values | {"batch": 6, "seed": 6, "sizes": [[64, 96]], "sources": {"rooms": 1.0, "bare": 1.0}}
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((values, bank)))
    (tmp_path / "worker.py").write_text(WORKER)

    config = parse_config(values, "task")
    run = Run.start(config, None)
    run.network.train()
    batch = Sampler(bank, config.sources, config.seed, Augmentation(), 0.0).batch(0, config.batch, config.sizes)
    labelled = (batch.person >= 0).flatten(1).any(1)
    assert 0 < int(labelled[::2].sum()) != int(labelled[1::2].sum())
    run.task.losses(run.parallel, batch)["loss"].backward()

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(tmp_path / "worker.py")]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]

    result = torch.load(tmp_path / "result.pt", weights_only=True)
    assert result["pictures"] == 3
    # sums in another order change signs of differences that are nearly zero, which absolute values make 0.1 % of a
    # gradient; a bias before a norm has no gradient but noise
    largest = max(float(parameter.grad.abs().max()) for parameter in run.network.parameters())
    for name, parameter in run.network.named_parameters():
        scale = float(parameter.grad.abs().max())
        error = float((result["gradients"][name] - parameter.grad).abs().max())
        assert error < 5e-3 * max(scale, 1e-3 * largest), name
    for name, buffer in run.network.named_buffers():
        assert torch.allclose(result["buffers"][name].float(), buffer.float(), rtol=1e-3, atol=1e-5), name


def test_a_single_process_weighs_its_means_by_one():
    assert share(3, torch.device("cpu")) == pytest.approx(1.0)
