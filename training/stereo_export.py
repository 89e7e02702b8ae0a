"""`python -m training export --model stereo_madnet`: a stereo network as an optional model of a repository."""

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from service.contract import STEREO
from training.errors import TrainingError
from training.models.madnet import MADNet, NormalisedMADNet
from training.serving import parameter_entries, tensor_entries
from training.stereo_evaluation import load_stereo_network
from training.version import file_sha256, write_config

WEIGHTS = "model.safetensors"

_MODEL = Path(__file__).with_name("stereo_model.py")
_NETWORKS: dict[type[nn.Module], str] = {MADNet: "madnet", NormalisedMADNet: "madnet_normalised"}
_IDLE_S = 5
_CANDIDATES = 256


def export_stereo(
    checkpoint: Path,
    repository: Path,
    *,
    threads: int = 1,
    max_streams: int = 8,
    states: Path | None = None,
) -> dict[str, Any]:
    """Puts the model, its weights and its `config.pbtxt` into a repository; returns what `metadata.json` says.

    Args:
        checkpoint: Of `train`, or a file of `weights`.
        repository: Model repository.
        threads: Of one prediction; one that adapts and one that does not run beside each other.
        max_streams: Sequences whose weights are kept, some 31 MB each.
        states: Folder for states that callers ask to be saved; None: they cannot.

    Raises:
        TrainingError: The file is missing or of another network, or the repository cannot be written.
    """
    network = load_stereo_network(checkpoint)
    name = _NETWORKS.get(type(network))
    if name is None:
        known = " and ".join(_NETWORKS.values())
        raise TrainingError(f"{checkpoint}: {type(network).__name__} is not served; {known} are")
    folder = repository / STEREO.name / "1"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
        partial = folder / f"{WEIGHTS}.tmp"
        safetensors.torch.save_file(tensors, partial, metadata={"model": name})
        partial.replace(folder / WEIGHTS)
        shutil.copyfile(_MODEL, folder / "model.py")
        metadata = {
            "model": STEREO.name,
            "network": name,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "sha256": file_sha256(folder / WEIGHTS),
            "checkpoint": {"path": str(checkpoint), "sha256": file_sha256(checkpoint)},
            "torch": torch.__version__,
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
        parameters = {"threads": threads, "max_streams": max_streams, "checkpoints": states or ""}
        write_config(repository, STEREO.name, _config({key: str(value) for key, value in parameters.items()}))
    except OSError as error:
        raise TrainingError(f"cannot write {folder}: {error.strerror}") from error
    return metadata


def _config(parameters: dict[str, str]) -> str:
    return f"""# Written by `python -m training export --model {STEREO.name}`, and written anew by the next one.
# Names, types and shapes: service/contract.py. `threads` of one prediction, `max_streams` sequences whose weights are
# kept, `checkpoints` folder of saved ones, empty for none.
name: "{STEREO.name}"
backend: "python"
max_batch_size: {STEREO.max_batch_size}
{tensor_entries("input", STEREO.inputs)}
{tensor_entries("output", STEREO.outputs)}
# One instance, so that one process holds every sequence; inside, adapting and plain requests have a thread each.
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
# A sequence's frames one after the other, those of different sequences in any order. One that is silent for so long
# gives its place to others, and not its weights: those go with the least recently used.
sequence_batching {{
  max_sequence_idle_microseconds: {_IDLE_S * 1_000_000}
  oldest {{ max_candidate_sequences: {_CANDIDATES} }}
}}
{parameter_entries(parameters)}
"""
