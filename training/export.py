"""Checkpoint -> one or several models of a repository, each written by `training.version` after numeric parity.

A network becomes one model. A stack (`training.models.meta_learner`) becomes one for each base network, one for the
meta-learner, and an ensemble over them. `pair` makes the ensemble behind `POST /focus` of two that are there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from service.contract import DEPTH_M, IMAGE, INVERSE_DEPTH, MODELS, PERSON, ModelSpec, Size, TensorSpec
from training.aoti import write_aoti
from training.checkpoint import Checkpoint, adopt, source_revision
from training.data.sample import read_rgb
from training.errors import TrainingError
from training.models import create_model
from training.models.focus_on_depth import Served
from training.models.meta_learner import BASES, ServedMeta, Stacked
from training.serving import (
    Step,
    Traits,
    canary_size,
    check_name,
    ensemble_config,
    outputs_of,
    served,
    served_sizes,
    spec_for,
)
from training.torchscript import write_torchscript
from training.version import comparison_batches, file_sha256, write_config, write_version

__all__ = ["Provenance", "Request", "export", "file_sha256", "pair", "read_photos", "served_network"]

_STRIDE = 32
_LARGE = 50_000_000
"""Parameters from which on a network is compared on fewer pictures: one takes a second and more."""

Tensors = tuple[TensorSpec, ...]

META = "meta"
"""What a stack's meta-learner is called beside `BASES`."""


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for its metadata.

    Attributes:
        checkpoint: File name of the checkpoint.
        checkpoint_sha256: Of that file.
        metrics: Result of `evaluate` for it.
    """

    checkpoint: str
    checkpoint_sha256: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """How somebody wants a checkpoint served.

    Attributes:
        name: Of the model.
        sizes: Fixed input sizes, empty for the eight served aspects.
        side_px: Side of the square one of those eight; None for about the default's.
        bf16: Whether it may be computed in bfloat16.
        traits: What else is to be said of it.
        target: `onnx` makes a version; `torchscript` and `aoti` add to the one that is there.
    """

    name: str = "focus_on_depth"
    sizes: tuple[Size, ...] = ()
    side_px: int | None = None
    bf16: bool = True
    traits: Traits = field(default_factory=Traits)
    target: Literal["onnx", "torchscript", "aoti"] = "onnx"


def trained_network(checkpoint: Checkpoint, origin: str = "checkpoint") -> nn.Module:
    """The averaged weights of a checkpoint; TrainingError, which names `origin`, if they do not fit."""
    network = create_model(checkpoint.config.model)
    adopt(network, checkpoint.ema, origin)
    return network.eval()


def served_network(checkpoint: Checkpoint, origin: str = "checkpoint") -> Served:
    """The same with both of FocusOnDepth's outputs as Triton serves them; TrainingError for a network of one."""
    network = trained_network(checkpoint, origin)
    if [tensor.name for tensor in outputs_of(network)] != [INVERSE_DEPTH.name, PERSON.name]:
        raise TrainingError(f"{origin}: {checkpoint.config.model} does not give inverse depth and people")
    return Served(network).eval()


def export(
    checkpoint: Checkpoint,
    provenance: Provenance,
    photos: Sequence[npt.NDArray[np.uint8]],
    repository: Path,
    request: Request = Request(),  # frozen
) -> dict[str, Any]:
    """Writes version 1 of a served model, or of every model of a stack.

    Args:
        checkpoint: What to export.
        provenance: For the metadata.
        photos: RGB uint8 (H, W, 3) pictures to compare on, beside noise.
        repository: Model repository; folders are made if need be.
        request: Under which name, and how.

    Returns:
        The metadata that was written; of a stack, that of the ensemble.

    Raises:
        TrainingError: The name or the sizes do not fit the network, or as `write_version`. Nothing is written.
    """
    network = trained_network(checkpoint, f"checkpoint {provenance.checkpoint}")
    outputs = outputs_of(network)
    check_name(request.name, outputs)
    stride = int(getattr(network, "stride", _STRIDE))
    for size in request.sizes:
        if size[0] % stride or size[1] % stride:
            raise TrainingError(f"size {size[0]}x{size[1]}: sides must be multiples of {stride} for this network")
    sizes = request.sizes or served_sizes(network, request.side_px)
    about = _about(checkpoint, provenance)
    job = Exporter(request, sizes, stride, photos, repository, about)
    return job.stack(network, outputs) if isinstance(network, Stacked) else job.network(network, outputs)


@dataclass(frozen=True)
class Exporter:
    """Writes what one request asks for.

    Attributes:
        request: Under which name, and how.
        sizes: Fixed input sizes.
        stride: What they are multiples of.
        photos: RGB uint8 (H, W, 3) pictures to compare on.
        repository: Model repository.
        about: For the metadata.
    """

    request: Request
    sizes: tuple[Size, ...]
    stride: int
    photos: Sequence[npt.NDArray[np.uint8]]
    repository: Path
    about: dict[str, Any]

    def _spec(self, name: str, inputs: Tensors, outputs: Tensors, canary: Size) -> ModelSpec:
        return spec_for(name, inputs, outputs, self.sizes, canary, self.request.traits)

    def _pictures(self, network: nn.Module, canary: Size) -> list[npt.NDArray[np.uint8]]:
        large = sum(parameter.numel() for parameter in network.parameters()) > _LARGE
        photos, count = (self.photos[:1], 2) if large else (self.photos, 3)
        return comparison_batches(photos, tuple(dict.fromkeys((*self.sizes, canary))), count=count)

    def _write(self, network: nn.Module, spec: ModelSpec, batches: Sequence[Any]) -> dict[str, Any]:
        if self.request.target == "torchscript":
            return write_torchscript(network, spec, batches, self.repository)
        if self.request.target == "aoti":
            return write_aoti(network, spec, self.stride, batches, self.repository)
        about = self.about | {"parity_photos": len(self.photos)}
        return write_version(network, spec, self.stride, batches, about, self.repository, self.request.bf16)

    def network(self, network: nn.Module, outputs: Tensors, name: str | None = None) -> dict[str, Any]:
        """Writes one network, under the request's name or another; returns its metadata."""
        name = name or self.request.name
        canary = canary_size(network, self.sizes)
        spec = MODELS.get(name) or self._spec(name, (IMAGE,), outputs, canary)
        if name in MODELS and self.sizes != spec.sizes:
            raise TrainingError(
                f"model {name} has the served sizes: leave --size and --side away, or name it otherwise"
            )
        return self._write(served(network), spec, self._pictures(network, canary))

    def stack(self, network: Stacked, outputs: Tensors) -> dict[str, Any]:
        """Writes base networks, meta-learner and the ensemble over them; returns the ensemble's metadata."""
        name, canary = self.request.name, canary_size(network, self.sizes)
        own = "depth" if name == "depth_stacked" else name
        parts = {part: f"{own}_{part}" for part in (*BASES, META)}
        found = {part: self.network(network.bases[part], outputs, parts[part]) for part in BASES}
        inputs = (IMAGE, *(TensorSpec(f"{part}_m", "float32", (-1, -1), DEPTH_M.unit) for part in BASES))
        meta = self._spec(parts[META], inputs, outputs, canary)
        batches = [(image, *_depths(network, image)) for image in self._pictures(network, canary)]
        found[META] = self._write(ServedMeta(network.meta).eval(), meta, batches)
        steps = [Step(parts[part], {"image": "image"}, {"depth_m": f"{part}_m"}) for part in BASES]
        given = {"image": "image"} | {f"{part}_m": f"{part}_m" for part in BASES}
        steps.append(Step(parts[META], given, {"depth_m": "depth_m"}))
        spec = spec_for(name, (IMAGE,), outputs, self.sizes, canary, self.request.traits, steps=True)
        metadata = self.about | {
            "model": name,
            "steps": {model: found[part]["sha256"] for part, model in parts.items()},
            "parity": {model: found[part]["parity"] for part, model in parts.items()},
            "parameters": sum(part["parameters"] for part in found.values()),
            "gflop": {
                "size": found[META]["gflop"]["size"],
                "value": round(sum(part["gflop"]["value"] for part in found.values()), 3),
            },
        }
        write_ensemble(spec, steps, metadata, self.repository)
        return _described(metadata, spec)


def _depths(network: Stacked, image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        depths = network.base_depths(torch.from_numpy(image)).float()
    return [depth.contiguous().numpy() for depth in depths.unbind(1)]


def write_ensemble(spec: ModelSpec, steps: Sequence[Step], metadata: dict[str, Any], repository: Path) -> None:
    """Writes an ensemble of models that are in `repository`: an empty version, what is known of it, and its config."""
    folder = repository / spec.name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(_described(metadata, spec), indent=2) + "\n")
    write_config(repository, spec.name, ensemble_config(spec, steps))


def _described(metadata: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    return metadata | {
        "outputs": [tensor.name for tensor in spec.outputs],
        "sizes": [list(size) for size in spec.sizes],
        "canary_size": list(spec.canary_size),
    }


def pair(depth: str, segmentation: str, name: str, repository: Path) -> dict[str, Any]:
    """Writes the ensemble `name`: any depth model and any segmentation model of a repository, side by side.

    Returns:
        Its metadata.

    Raises:
        TrainingError: One of them is not there, does something else, or they have no input size in common.
    """
    about = {model: _exported(model, repository) for model in (depth, segmentation)}
    given = [output for output in about[depth]["outputs"] if output != PERSON.name]
    if not given:
        raise TrainingError(f"model {depth} gives no depth, but {', '.join(about[depth]['outputs'])}")
    if PERSON.name not in about[segmentation]["outputs"]:
        raise TrainingError(f"model {segmentation} gives no person, but {', '.join(about[segmentation]['outputs'])}")
    tensor = DEPTH_M if given == [DEPTH_M.name] else INVERSE_DEPTH
    check_name(name, (tensor, PERSON))
    common = [size for size in about[depth]["sizes"] if size in about[segmentation]["sizes"]]
    sizes = [(int(height), int(width)) for height, width in common]
    if not sizes:
        raise TrainingError(f"{depth} and {segmentation} share no input size: export one with the other's --size")
    canary = min(sizes, key=lambda size: size[0] * size[1])
    traits = Traits(f"{depth} and {segmentation}", "that of its steps")
    spec = spec_for(name, (IMAGE,), (tensor, PERSON), tuple(sizes), canary, traits, steps=True)
    steps = [
        Step(depth, {"image": "image"}, {tensor.name: tensor.name}),
        Step(segmentation, {"image": "image"}, {PERSON.name: PERSON.name}),
    ]
    metadata = {"model": name, "steps": {model: each["sha256"] for model, each in about.items()}}
    write_ensemble(spec, steps, metadata, repository)
    return _described(metadata, spec)


def _exported(model: str, repository: Path) -> dict[str, Any]:
    path = repository / model / "1" / "metadata.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"model {model}: no {path}; export it first") from error
    known = MODELS.get(model)
    if known is not None:
        return found | _described({}, known)
    return found


def _about(checkpoint: Checkpoint, provenance: Provenance) -> dict[str, Any]:
    return {
        "network": checkpoint.config.model,
        "checkpoint": {
            "file": provenance.checkpoint,
            "sha256": provenance.checkpoint_sha256,
            "step": checkpoint.step,
            "commit": checkpoint.commit,
        },
        "exported_from_commit": source_revision(),
        "config": checkpoint.config.flat(),
        "data_sources": sorted(checkpoint.config.sources),
        "metrics": provenance.metrics,
    }


def read_photos(paths: Sequence[Path]) -> list[npt.NDArray[np.uint8]]:
    """Pictures for the comparison."""
    return [read_rgb(path) for path in paths]
