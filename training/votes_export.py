"""`python -m training export-votes`: person votes as an ONNX file that the gateway runs through OpenCV."""

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from torch import nn

from service.contract import Size
from training.checkpoint import Checkpoint, adopt, load_checkpoint
from training.errors import TrainingError
from training.models import create_model
from training.models.person_votes import PersonVotes

INPUT, OUTPUT = "maps", "votes"
OPSET = 17
TOLERANCE = 1e-3
"""Largest difference of an output between torch and OpenCV, in the outputs' own units."""
SIZES: tuple[Size, ...] = ((224, 320), (320, 224), (256, 256))
"""(height, width) that both are compared at; the first is the exported graph's own."""


def export_votes(checkpoint: Path, out: Path) -> float:
    """Writes the averaged weights' network, after comparing OpenCV with torch; the file is whole or not there at all.

    Its graph has one fixed size, but nothing in it depends on that: OpenCV runs it at every multiple of 32.

    Args:
        checkpoint: Of `train`.
        out: ONNX file; its metadata say the commit, recipe, seed and steps that it comes of.

    Returns:
        The largest difference of an output over all sizes.

    Raises:
        TrainingError: The checkpoint is missing or of another network, OpenCV gives something else than torch, or the
            file cannot be written.
    """
    stored = load_checkpoint(checkpoint)
    network = create_model(stored.config.model)
    if not isinstance(network, PersonVotes):
        raise TrainingError(f"{checkpoint} is of {stored.config.model}; export-votes takes person_votes alone")
    adopt(network, stored.ema, f"checkpoint {checkpoint}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            written = Path(folder) / out.name
            write_votes(network, stored, written)
            difference = largest_difference(network, written)
            if not difference <= TOLERANCE:
                raise TrainingError(f"OpenCV's votes are up to {difference:.2g} off torch's, allowed is {TOLERANCE}")
            os.replace(written, out)
    except OSError as error:
        raise TrainingError(f"cannot write {out}: {error.strerror}") from error
    return difference


def write_votes(network: nn.Module, origin: Checkpoint, path: Path) -> None:
    """Writes the network as ONNX; it is left in eval mode."""
    network.eval()
    with warnings.catch_warnings():
        # the newer exporter writes sizes into Resize, which OpenCV then keeps at every other input
        warnings.simplefilter("ignore", DeprecationWarning)
        # it turns the order of a padding round without folding it; the graph is right, as the comparison shows
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, 5, *SIZES[0]),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=False,
        )
    network.eval()  # the exporter leaves it in the mode that it found its parts in
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.doc_string = ""  # where on this machine the source lies
    about = {"commit": origin.commit, "seed": origin.config.seed, "steps": origin.step, "model": origin.config.model}
    onnx.helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    onnx.save(model, str(path))


def largest_difference(network: nn.Module, path: Path, sizes: Sequence[Size] = SIZES) -> float:
    """Of an output of torch and of OpenCV, over noise at all sizes.

    Raises:
        TrainingError: OpenCV cannot read or run the file.
    """
    rng, largest = np.random.default_rng(0), 0.0
    try:
        reader = cv2.dnn.readNetFromONNX(str(path))
        for size in sizes:
            maps = rng.uniform(-1, 1, (1, 5, *size)).astype(np.float32)
            with torch.inference_mode():
                expected = network(torch.from_numpy(maps)).numpy()
            reader.setInput(maps)
            found = np.asarray(reader.forward())
            if found.shape != expected.shape:
                raise TrainingError(f"OpenCV gives votes of {found.shape} at {size}, torch {expected.shape}")
            largest = max(largest, float(np.abs(found - expected).max()))
    except cv2.error as error:
        raise TrainingError(f"OpenCV cannot run {path.name}: {str(error).splitlines()[0][:200]}") from error
    return largest
