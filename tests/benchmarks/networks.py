"""The networks that are measured: Depth Anything V2 Small with random weights, in transformers and as ours, and the
default one with the weights it serves.

Speed does not depend on the weights; errors do, so the random ones are drawn such that every layer matters.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.contract import IMAGE, MODELS, Size
from training.checkpoint import load_averaged
from training.config import parse_config
from training.export import trained_network
from training.importers.networks import import_checkpoint
from training.serving import Traits, network_config, outputs_of, served, spec_for
from training.version import gigaflop, write_config, write_onnx

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "training" / "weights" / "focus_on_depth_second_round.safetensors"
DEFAULT_SIZE = (288, 384)
MODEL = "depth_anything"


@dataclass(frozen=True)
class Subject:
    """A network as torch and as a file, with the same weights.

    Attributes:
        title: for people.
        key: in the names of figures.
        network: in torch: uint8 (B, H, W, 3) -> what `file` gives.
        file: ONNX.
        size: of the input that is measured.
    """

    title: str
    key: str
    network: nn.Module
    file: Path
    size: Size

    @cached_property
    def gflop(self) -> float:
        """Of one input."""
        return gigaflop(self.network, [torch.zeros(1, *self.size, 3, dtype=torch.uint8)])


@dataclass(frozen=True)
class Networks:
    """What all parts share; each thing is made when it is first asked for.

    Args:
        folder: for files; must be empty.
        tiny: a network of the same kind that is done in no time, for tests.
    """

    folder: Path
    tiny: bool = False

    @property
    def side(self) -> int:
        """Of the square that Depth Anything sees."""
        return 70 if self.tiny else 518

    @cached_property
    def transformers_network(self) -> Any:
        """Depth Anything V2 Small as `transformers` has it."""
        sys.path.append(str(ROOT / "tests" / "support"))  # where pytest finds it by its own settings
        from oracles import depth_anything_oracle, randomise

        small = (70, 32, 4, 2, (1, 2, 3, 4), [8, 16, 24, 32], 16)
        return randomise(depth_anything_oracle(*small) if self.tiny else depth_anything_oracle())

    @cached_property
    def depth_anything(self) -> Subject:
        """The same as ours, imported, and exported into a repository beside the default network."""
        stored = self.folder / "transformers"
        self.transformers_network.save_pretrained(stored)
        kind = "tiny" if self.tiny else "small"
        checkpoint = import_checkpoint(stored / "model.safetensors", f"depth_anything_v2_{kind}")
        network = trained_network(checkpoint)
        size = (self.side, self.side)
        traits = Traits("Depth Anything V2 Small, random weights", "none: random weights")
        spec = spec_for(MODEL, (IMAGE,), outputs_of(network), (size,), size, traits)
        repository = self.folder / "repository"
        shutil.copytree(ROOT / "model_repository", repository)
        (repository / "focus" / "1").mkdir(exist_ok=True)  # git keeps no empty folder
        file = repository / MODEL / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        as_served = served(network)
        write_onnx(as_served, spec, 14, file)
        write_config(repository, MODEL, network_config(spec))
        return Subject("Depth Anything V2 Small", "da", as_served, file, size)

    @property
    def repository(self) -> Path:
        """Models to serve: the default ones and Depth Anything."""
        return self.depth_anything.file.parents[2]

    @cached_property
    def default(self) -> Subject:
        """The default network; the file is written anew, since the weights in git are rounded to float16."""
        version = ROOT / "model_repository" / "focus_on_depth" / "1"
        about = json.loads((version / "metadata.json").read_text())
        checkpoint = load_averaged(CHECKPOINT, parse_config(about["config"], "metadata.json"))
        network = served(trained_network(checkpoint))
        if self.tiny:
            return Subject("the default network", "default", network, version / "model.onnx", DEFAULT_SIZE)
        file = self.folder / "focus_on_depth.onnx"
        write_onnx(network, MODELS["focus_on_depth"], 32, file)
        return Subject("the default network", "default", network, file, DEFAULT_SIZE)


@cache
def shared(folder: Path, tiny: bool) -> Networks:
    """The same for all parts of a run."""
    return Networks(folder, tiny)
