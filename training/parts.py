"""A network judged on one part of its own recipe's split, as its recipe's validation judges: `evaluate --part`."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.checkpoint import load_checkpoint
from training.data.bank import Part, part_of, reduce
from training.data.sample import BrokenSampleError, Sample, checked
from training.errors import TrainingError
from training.export import file_sha256, trained_network
from training.tasks import make_judge

Table = dict[str, dict[str, float]]
"""Source, or `all` -> metric -> value."""


@dataclass(frozen=True)
class Judged:
    """One network on one part.

    Attributes:
        name: The run's folder.
        about: What was judged, for a JSON file.
        table: Means over the pictures of each source, and `all` over those of every source.
    """

    name: str
    about: dict[str, Any]
    table: Table


def judge(path: Path, part: Part, readers: Iterable[tuple[str, Callable[[], Sample]]]) -> Judged:
    """Judges a checkpoint.

    Args:
        path: Of `training.checkpoint`.
        part: `held_out`, what validation saw while it was trained, or `test`, what nothing has seen.
        readers: See `training.data.bank.readers`; sources that its recipe does not train on are left out.

    Raises:
        TrainingError: The recipe's split has no test part, or there is no sample of the part.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    if part == "test" and not (config.split and config.split[2]):
        raise TrainingError(
            f"checkpoint {path}: its recipe keeps nothing for a test (split is {list(config.split)}); "
            "--part held_out judges the scenes of its validation"
        )
    task, network = make_judge(config), trained_network(checkpoint, f"checkpoint {path}")
    found: dict[str, list[Sample]] = defaultdict(list)
    for source, sample in _samples(readers, part, config.split):
        if source in config.sources and task.wants(sample):
            found[source].append(sample)
    if not found:
        raise TrainingError(
            f"checkpoint {path}: no sample of its {part} part; its sources: {', '.join(config.sources)}"
        )
    table = {source: task.metrics(network, samples) for source, samples in sorted(found.items())}
    table["all"] = task.metrics(network, [sample for samples in found.values() for sample in samples])
    about = {"checkpoint_sha256": file_sha256(path), "step": checkpoint.step, "network": config.model}
    about |= {"part": part, "split": list(config.split)}
    about |= {"pictures": {source: len(samples) for source, samples in sorted(found.items())}}
    return Judged(path.resolve().parent.name, about, table)


def _samples(
    readers: Iterable[tuple[str, Callable[[], Sample]]], part: Part, split: Sequence[int]
) -> Iterable[tuple[str, Sample]]:
    for source, read in tqdm(list(readers), desc="read", unit="sample"):
        try:
            sample = checked(read())
        except BrokenSampleError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        if part_of(sample.scene, split) == part:
            yield source or sample.source, reduce(sample)


def markdown(judged: Sequence[Judged]) -> str:
    """A table for each network: a row is a source, a column a metric."""
    blocks = []
    for one in judged:
        names = list(dict.fromkeys(name for row in one.table.values() for name in row))
        lines = [f"{one.name}, {one.about['part']} part of its split {one.about['split']}", ""]
        lines += [f"| source | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        for source, row in one.table.items():
            cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
            lines.append(f"| {source} | {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
