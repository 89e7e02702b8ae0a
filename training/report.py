"""The evaluation report: networks, baselines and teachers judged side by side, as JSON and as Markdown tables."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.contract import MODELS, Size
from training.checkpoint import load_checkpoint
from training.data import person, rgbd
from training.data.bank import is_held_out
from training.data.sample import BrokenSampleError, Sample
from training.data.synthetic.dataset import read_scene, read_scenes
from training.data.truth import depth_truth
from training.errors import TrainingError
from training.evaluation import BASELINES, STEP_8BIT, Predictor, Score, Table, judge, letterboxed, summarise
from training.export import file_sha256, served_network
from training.parity import Runtime, eager, onnx_runtime
from training.teachers import depth_teachers, person_teachers

PARTS = ("depth", "depth_sharp", "rgbd", "person", "person_sharp", "scenes")
"""Of an entry of the report: depth with truth, pairs of `rgbd/`, people, and rendered scenes with both; `_sharp` are
the same pictures with the service's `edges=sharp`."""

HELD_OUT = "/held out"
"""Behind the name of a `rgbd` set: only its scenes that no training with it sees."""

PROTOCOL = (
    "Per picture, the prediction is aligned to truth in inverse depth by least squares with scale >= 0 and capped at "
    "the farthest true depth; delta1 and AbsRel in depth. Means are over pictures, then over sources with equal weight."
)


@dataclass
class Entry:
    """A network or a peer, and its tables by part.

    Attributes:
        name: In tables.
        about: What it is, for the JSON file.
        predictor: At the photo's size.
        sharp: The same with `edges=sharp`; None for peers.
        trained_on: Sources of its training.
        tables: By part.
        pictures: Scores of each picture of truth.
    """

    name: str
    about: dict[str, Any]
    predictor: Predictor
    sharp: Predictor | None = None
    trained_on: frozenset[str] = frozenset()
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: list[Score] = field(default_factory=list)

    @property
    def is_network(self) -> bool:
        """Whether it is ours and not a peer."""
        return self.sharp is not None

    def flat(self) -> dict[str, Any]:
        """Plain values for the JSON file."""
        pictures = {score.name: {k: round(v, 5) for k, v in score.values.items()} for score in self.pictures}
        return {"name": self.name} | self.about | self.tables | ({"pictures": pictures} if pictures else {})


def _network(name: str, about: dict[str, Any], runtime: Runtime, size: Size | None, trained_on: Sequence[str]) -> Entry:
    raw, sharp = letterboxed(runtime, size), letterboxed(runtime, size, "sharp")
    return Entry(name, about, raw, sharp, frozenset(trained_on))


def networks(checkpoints: Sequence[Path], files: Sequence[Path], size: Size | None) -> list[Entry]:
    """Entries of checkpoints and of exported ONNX files.

    A checkpoint is named after its run's folder, and its file too unless that is `last.pt`; an ONNX file after its
    model's folder.

    Raises:
        TrainingError: One cannot be read.
    """
    entries = []
    for path in checkpoints:
        checkpoint = load_checkpoint(path)
        place = path.resolve()
        about: dict[str, Any] = {
            "checkpoint_sha256": file_sha256(path),
            "step": checkpoint.step,
            "network": checkpoint.config.model,
            "data_sources": sorted(checkpoint.config.sources),
        }
        name = place.parent.name if place.stem == "last" else f"{place.parent.name}/{place.stem}"
        runtime = eager(served_network(checkpoint, f"checkpoint {path}"))
        entries.append(_network(name, about, runtime, size, about["data_sources"]))
    for path in files:
        if not path.is_file():
            raise TrainingError(f"ONNX file not found: {path}")
        metadata = path.with_name("metadata.json")
        known = json.loads(metadata.read_text()) if metadata.is_file() else {}
        about = {"onnx_sha256": file_sha256(path), "data_sources": known.get("data_sources", [])}
        runtime = onnx_runtime(path, [tensor.name for tensor in MODELS["focus_on_depth"].outputs])
        name = f"{path.resolve().parent.parent.name}.onnx"
        entries.append(_network(name, about, runtime, size, about["data_sources"]))
    names = [entry.name for entry in entries]
    for entry, path in zip(entries, [*checkpoints, *files], strict=True):
        if names.count(entry.name) > 1:
            entry.name = str(path)
    return entries


def peers(weights: Path | None, threads: int) -> tuple[list[Entry], list[Entry]]:
    """Entries judged on depth, and on people: baselines, and with `weights` the teachers in that folder."""
    depth = dict(BASELINES) | (depth_teachers(weights, threads) if weights else {})
    people = person_teachers(weights) if weights else {}
    return [Entry(name, {}, p) for name, p in depth.items()], [Entry(name, {}, p) for name, p in people.items()]


def run_scenes(
    ours: Sequence[Entry], depth_peers: Sequence[Entry], person_peers: Sequence[Entry], scenes: Path
) -> None:
    """Fills in the tables of rendered scenes, from the tenth below `scenes` that no training ever sees.

    Raises:
        TrainingError: No such scene there.
    """
    paths = [path for path in read_scenes(scenes) if is_held_out(path.stem)]
    samples = list(_readable(partial(read_scene, path) for path in paths))
    if not samples:
        raise TrainingError(f"no held-out scene below {scenes}: one in ten is, by its name; render more with `synth`")
    for entries, seen in (
        (ours, samples),
        (depth_peers, [replace(sample, person=None) for sample in samples]),
        (person_peers, [replace(sample, inverse_depth=None) for sample in samples]),
    ):
        judged = {entry.name: entry for entry in entries}
        if not judged:
            continue
        for name, scores in judge(_raw(judged), seen, True, title="scenes", total=len(seen)).items():
            judged[name].tables["scenes"] = summarise(scores)


def run(
    ours: Sequence[Entry], depth_peers: Sequence[Entry], person_peers: Sequence[Entry], data: Path, sets: Sequence[str]
) -> None:
    """Fills in the tables of truth and of the sets of `rgbd/`.

    Args:
        ours: Networks.
        depth_peers: Judged on depth only.
        person_peers: Judged on people only.
        data: Data folder.
        sets: Folders of `rgbd/` to judge on too.

    Raises:
        TrainingError: No truth there, or a set without pairs.
    """
    entries = {entry.name: entry for entry in [*ours, *depth_peers]}
    pairs = {name: list(rgbd.read_pairs(data, name)) for name in sets}
    for name, found in pairs.items():
        if not found:
            raise TrainingError(f"no pairs with inverse depth in {data / 'rgbd' / name}; see --rgbd")
    truth = list(depth_truth(data))
    masks = list(person.read_masks(data, person.PERSON_TRUTH_SETS))

    for name, scores in judge(_raw(entries), truth, True, title="depth", total=len(truth)).items():
        entries[name].tables["depth"], entries[name].pictures = summarise(scores), scores
    sharp = {entry.name: entry.sharp for entry in ours if entry.sharp}
    for name, scores in judge(sharp, truth, True, title="depth, edges=sharp", total=len(truth)).items():
        entries[name].tables["depth_sharp"] = summarise(scores)
    for source, photos in pairs.items():
        samples = _readable(partial(rgbd.read_sample, data, photo) for photo in photos)
        step = STEP_8BIT if photos[0].with_suffix(".inv8.png").is_file() else 0.0
        unseen = [photo for photo in photos if is_held_out(rgbd.scene_of(source, photo.stem))]
        held_out = {str(photo.relative_to(data).with_suffix("")) for photo in unseen}
        for name, scores in judge(_raw(entries), samples, True, step, source, len(photos)).items():
            entries[name].tables.setdefault("rgbd", {}).update(_of_set(source, scores, held_out, entries[name]))
    people = {entry.name: entry for entry in [*ours, *person_peers]}
    samples = (person.read_masked(data, *entry) for entry in masks)
    for name, scores in judge(_raw(people), samples, title="people", total=len(masks)).items():
        people[name].tables["person"] = summarise(scores)
    samples = (person.read_masked(data, *entry) for entry in masks)
    for name, scores in judge(sharp, samples, title="people, edges=sharp", total=len(masks)).items():
        entries[name].tables["person_sharp"] = summarise(scores)


def _raw(entries: Mapping[str, Entry]) -> dict[str, Predictor]:
    return {name: entry.predictor for name, entry in entries.items()}


def _readable(readers: Iterable[Callable[[], Sample]]) -> Iterator[Sample]:
    """The samples of a set; a broken one is named and left out."""
    for read in readers:
        try:
            yield read()
        except BrokenSampleError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)


def _of_set(source: str, scores: Sequence[Score], held_out: set[str], entry: Entry) -> Table:
    """Rows of one `rgbd` set: all of it unless it was trained on, and its held-out scenes if there are any."""
    kept = [Score(s.name, source + HELD_OUT, s.values) for s in scores if s.name in held_out]
    chosen = kept if source in entry.trained_on else [*scores, *kept]
    return {name: row for name, row in summarise(chosen).items() if name.startswith(source)}


def document(entries: Sequence[Entry], size: Size | None) -> dict[str, Any]:
    """The JSON file's content."""
    return {
        "protocol": PROTOCOL,
        "size": list(size) if size else None,
        "networks": [entry.flat() for entry in entries if entry.is_network],
        "peers": [entry.flat() for entry in entries if not entry.is_network],
    }


def metrics_of(found: Any, checkpoint_sha256: str) -> dict[str, Any] | None:
    """The tables of one checkpoint in a `document`, for its model's metadata; None if it is not among them."""
    networks_found = found.get("networks", []) if isinstance(found, dict) else []
    for entry in networks_found:
        if entry.get("checkpoint_sha256") == checkpoint_sha256:
            return {"step": entry["step"]} | {part: entry[part] for part in PARTS if part in entry}
    return None
