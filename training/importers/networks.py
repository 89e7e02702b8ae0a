"""Networks that can be imported, and the step from a published file to a checkpoint of ours."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from training.checkpoint import Checkpoint, source_revision
from training.config import ImportedConfig
from training.errors import TrainingError
from training.export import file_sha256
from training.importers import depth_anything, dpt, focus_on_depth
from training.importers.layout import Layout, read_state, translate
from training.models import create_model

IMPORTERS: MappingProxyType[str, Sequence[Layout]] = MappingProxyType(
    {
        "depth_anything_v2_small": depth_anything.LAYOUTS,
        "depth_anything_v2_base": depth_anything.LAYOUTS,
        "depth_anything_v2_large": depth_anything.LAYOUTS,
        "depth_anything_v2_tiny": depth_anything.LAYOUTS,
        "dpt_large": dpt.DEPTH,
        "dpt_hybrid": dpt.HYBRID,
        "dpt_large_ade20k": dpt.SEGMENTATION,
        "dpt_tiny": dpt.DEPTH,
        "dpt_ade20k_tiny": dpt.SEGMENTATION,
        "focus_on_depth_vit_base": focus_on_depth.LAYOUTS,
        "focus_on_depth_vit_large": focus_on_depth.LAYOUTS,
        "focus_on_depth_vit_base_tiny": focus_on_depth.LAYOUTS,
    }
)
"""Layouts known of each network that can be imported."""


def import_checkpoint(path: Path, name: str) -> Checkpoint:
    """A published file as a checkpoint of step 0, which `export` takes like any other.

    Args:
        path: See `layout.read_state`.
        name: In `IMPORTERS`.

    Raises:
        TrainingError: No such network, or the file cannot be read or is not of it.
    """
    if name not in IMPORTERS:
        raise TrainingError(f"no weights can be imported as {name!r}; known: {', '.join(IMPORTERS)}")
    stored = read_state(path)
    network = create_model(name)
    translate(stored, network, IMPORTERS[name], f"weights {path}")
    state = network.state_dict()
    config = ImportedConfig(task="imported", model=name, imported_file=path.name, imported_sha256=file_sha256(path))
    return Checkpoint(0, state, state, {}, config, source_revision(), {})
