"""`python -m training proxies` and `proxy-study`: labels of a matcher judged, and what networks make of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.config_stereo import ProxyConfig
    from training.data.stereo_pairs import StereoFrame
    from training.proxies import Match
    from training.proxy_page import LabelQuality
    from training.proxy_study import Outcome

PAGE, PICTURE = "docs/results/stereo_proxies.md", "stereo_proxies.jpg"
_DRAWN = 3  # worlds of the picture


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares both commands."""
    _add_judge(
        commands.add_parser("proxies", help="judge stereo labels", description="Judge matchers' labels by the truth.")
    )
    _add_study(
        commands.add_parser(
            "proxy-study",
            help="adapt to labels in several ways",
            description="Adapt a stereo network offline to labels with outliers, with and without confidence.",
        )
    )


def _add_judge(command: argparse.ArgumentParser) -> None:
    """Declares the options of `proxies`."""
    command.add_argument(
        "--sequence", action="append", required=True, help="DOMAIN:SEED or a folder with truth, as `adapt`; repeatable"
    )
    command.add_argument("--frames", type=int, default=10, help="of each at most (default 10)")
    command.add_argument("--width", type=int, default=640, help="reduce larger pairs to this width (default 640)")
    command.add_argument("--outliers", type=float, default=0.0, help="share of labels made wrong (default 0)")
    command.add_argument("--ccnn", type=Path, help="checkpoint of a trained CCNN, judged beside the hand-made measures")
    command.add_argument("--out", type=Path, help="PNG file of pictures, labels, their confidence and the truth")
    command.set_defaults(run=run_judge)


def run_judge(arguments: argparse.Namespace) -> None:
    """Prints a table: density and errors of both matchers' labels, and how well each confidence finds the wrong ones.

    Raises:
        TrainingError: A sequence, the CCNN or the file cannot be used.
    """
    import torch

    from training.confidence import combined
    from training.data.proxy_pairs import ccnn_measure
    from training.proxies import MATCHERS
    from training.proxy_page import label_quality, quality_table
    from training.stereo_evaluation import frames_of

    torch.set_num_threads(1)
    if arguments.frames < 1 or not 0 <= arguments.outliers < 1:
        raise TrainingError(f"--frames is {arguments.frames}, --outliers {arguments.outliers}: at least 1, and 0 to 1")
    measure = None if arguments.ccnn is None else ccnn_measure(arguments.ccnn)
    frames = [
        frame
        for sequence in arguments.sequence
        for frame in frames_of(sequence, arguments.frames, arguments.width)
        if frame.disparity_px is not None and frame.disparity_px.any()
    ]
    if not frames:
        raise TrainingError("no pair with truth to judge labels by")
    found: dict[str, LabelQuality] = {}
    more = {} if measure is None else {"ccnn": measure}
    for matcher in MATCHERS:
        matches = [_match(frame, matcher, arguments.outliers, number) for number, frame in enumerate(frames)]
        found[matcher] = label_quality(frames, matches, more)
        if arguments.out:
            path = arguments.out if matcher == "sgm" else arguments.out.with_stem(f"{arguments.out.stem}_{matcher}")
            shown = frames[:: max(1, len(frames) // _DRAWN)][:_DRAWN]
            kept = matches[:: max(1, len(frames) // _DRAWN)][:_DRAWN]
            sure = [(measure or combined)(f.left, f.right, m) for f, m in zip(shown, kept, strict=True)]
            columns: list[tuple[str, Sequence[Any]]] = [
                ("left", [f.left for f in shown]),
                (f"labels of {matcher}", [m.disparity_px for m in kept]),
            ]
            truths = [f.disparity_px for f in shown if f.disparity_px is not None]
            _write([*columns, ("confidence", sure), ("truth", truths)], path)
    print(quality_table(found))


def _match(frame: "StereoFrame", matcher: str, outliers: float, seed: int) -> "Match":
    import numpy as np

    from training.proxies import MATCHERS, largest_disparity, with_outliers

    match = MATCHERS[matcher](frame.left, frame.right)  # type: ignore[index]  # its keys' names
    return with_outliers(match, outliers, largest_disparity(frame.left.shape[1]), np.random.default_rng(seed))


def _write(columns: Sequence[tuple[str, Sequence[Any]]], path: Path) -> None:
    """Pictures and maps, a column for each name."""
    import cv2

    from training.proxy_page import picture

    path.parent.mkdir(parents=True, exist_ok=True)
    small = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_JPEG_QUALITY, 65]
    if not cv2.imwrite(str(path), picture(columns)[..., ::-1], small):
        raise TrainingError(f"cannot write {path}")


def _add_study(command: argparse.ArgumentParser) -> None:
    """Declares the options of `proxy-study`."""
    command.add_argument("--weights", type=Path, required=True, help="checkpoint of a stereo network to start from")
    command.add_argument("--ccnn", type=Path, required=True, help="checkpoint of a trained CCNN")
    command.add_argument("--config", type=Path, default=Path("training/configs/adapt_stereo.yaml"), help="recipe")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    command.add_argument("--domain", default="fog", help="clean, night, fog, noise or textures (default fog)")
    command.add_argument("--worlds", type=int, default=12, help="to adapt to, and as many to judge on (default 12)")
    command.add_argument("--frames", type=int, default=2, help="of each world (default 2)")
    command.add_argument("--outliers", type=float, default=0.2, help="share of labels made wrong (default 0.2)")
    command.add_argument("--matcher", action="append", choices=("sgm", "ad_census"), help="repeatable (default both)")
    command.add_argument(
        "--way",
        action="append",
        choices=("unweighted", "masked", "fixed", "learned", "truth"),
        help="how labels are used; repeatable (default all)",
    )
    command.add_argument("--seeds", type=int, default=3, help="runs of each way (default 3)")
    command.add_argument("--out", type=Path, required=True, help="folder of the runs, e.g. runs/proxies")
    command.add_argument(
        "--page",
        type=Path,
        default=Path(PAGE),
        help=f"default {PAGE}",
    )
    command.add_argument("--threads", type=int, default=1, help="threads of the network (default 1)")
    command.set_defaults(run=run_study)


def run_study(arguments: argparse.Namespace) -> None:
    """Adapts in every way, judges, and writes the page and its picture; runs that are done are not done again.

    Raises:
        TrainingError: An option, a checkpoint or a folder cannot be used.
    """
    import torch
    from tqdm import tqdm

    from training import proxy_study
    from training.proxies import MATCHERS
    from training.stereo_evaluation import judge_pairs, load_stereo_network
    from training.tables import write_tables

    if min(arguments.worlds, arguments.frames, arguments.seeds) < 1:
        raise TrainingError("--worlds, --frames and --seeds must be at least 1")
    torch.set_num_threads(arguments.threads)
    config = _recipe(arguments)
    base = load_stereo_network(arguments.weights)
    worlds, frames = arguments.worlds, arguments.frames
    learned = proxy_study.frames_of_worlds(arguments.domain, proxy_study.FIRST_WORLD, worlds, frames)
    judged = proxy_study.frames_of_worlds(arguments.domain, proxy_study.FIRST_JUDGED, worlds, frames)
    matchers, seeds = arguments.matcher or list(MATCHERS), range(1, arguments.seeds + 1)
    ways = [w for w in (*proxy_study.WAYS, proxy_study.TRUTH) if w.key in (arguments.way or [w.key])]
    runs = proxy_study.run_ways(config, arguments.weights, learned, judged, matchers, seeds, arguments.out, ways)
    of_labels = len(ways) - (proxy_study.TRUTH in ways)
    count = len(seeds) * (len(matchers) * of_labels + len(ways) - of_labels)
    outcomes = list(tqdm(runs, "ways", count, unit="run"))
    text = _page(arguments, config, judge_pairs(base, judged), outcomes, learned, judged)
    write_tables(text, arguments.page, _marks())
    print(f"{arguments.page}: {len(outcomes)} runs")


def _marks() -> tuple[str, str]:
    from training.proxy_page import MARKS

    return MARKS


def _recipe(arguments: argparse.Namespace) -> "ProxyConfig":
    import dataclasses

    from training.checkpoint import load_checkpoint
    from training.config import load_config
    from training.config_stereo import ProxyConfig
    from training.data.domains import DOMAINS

    if arguments.domain not in DOMAINS:
        raise TrainingError(f"--domain {arguments.domain}: expected {', '.join(DOMAINS)}")
    config = load_config(arguments.config, arguments.set)
    if not isinstance(config, ProxyConfig):
        raise TrainingError(f"{arguments.config}: task {config.task}; expected proxy_adaptation")
    pairs = (f"{arguments.domain}:6000",)
    model = load_checkpoint(arguments.weights).config.model  # siblings have the same weights and mean others by them
    told = {"outliers": arguments.outliers, "confidence": "ccnn", "ccnn": str(arguments.ccnn)}
    return dataclasses.replace(config, model=model, pairs=pairs, frames=arguments.frames, **told)


def _page(
    arguments: argparse.Namespace,
    config: "ProxyConfig",
    before: dict[str, float],
    outcomes: "list[Outcome]",
    learned: "list[StereoFrame]",
    judged: "list[StereoFrame]",
) -> str:
    """Draws the picture beside the page; the tables."""
    import numpy as np

    from training import proxy_page, proxy_study
    from training.data.proxy_pairs import ccnn_measure
    from training.stereo_evaluation import load_stereo_network
    from training.tasks.stereo import predict

    measure, base = ccnn_measure(arguments.ccnn), load_stereo_network(arguments.weights)
    matchers = list(dict.fromkeys(one.matcher for one in outcomes if one.way != proxy_study.TRUTH.name))
    quality, firsts = {}, learned[:: arguments.frames]
    for share in (0.0, arguments.outliers):
        for matcher in matchers:
            matches = [_match(frame, matcher, share, number) for number, frame in enumerate(firsts)]
            name = f"{matcher}, {100 * share:.0f} % made wrong"
            quality[name] = proxy_page.label_quality(firsts, matches, {"ccnn": measure})
    shown = range(0, min(len(judged), proxy_study.SHOWN), arguments.frames)[:_DRAWN]
    frames = [judged[index] for index in shown]
    matches = [_match(frame, matchers[0], arguments.outliers, number) for number, frame in enumerate(frames)]
    columns: list[tuple[str, Sequence[Any]]] = [
        ("left", [frame.left for frame in frames]),
        (f"labels of {matchers[0]}, with outliers", [match.disparity_px for match in matches]),
        ("confidence (CCNN)", [measure(f.left, f.right, m) for f, m in zip(frames, matches, strict=True)]),
        ("before", [predict(base, frame.left, frame.right) for frame in frames]),
    ]
    done = {one.way for one in outcomes}
    for way in (way for way in (proxy_study.WAYS[0], proxy_study.WAYS[2]) if way.name in done):
        folder = proxy_study.folder_of(arguments.out, matchers[0], way.name, 1)
        maps = np.load(folder / proxy_study.MAPS)["arr_0"]
        columns.append((way.name.split(",")[0], [maps[index] for index in shown]))
    columns.append(("truth", [frame.disparity_px for frame in frames]))
    _write(columns, arguments.page.with_name(PICTURE))
    about = (
        f"Domain {arguments.domain}, {len(learned)} pairs to adapt to, {len(judged)} of other worlds to judge on, "
        f"{config.steps} steps of {config.batch}, rate {config.lr:g}, {arguments.seeds} seeds; smoothness "
        f"{config.smoothness_weight:g}, photometric {config.photometric_weight:g}, threshold {config.threshold:g}."
    )
    parts = [
        about,
        proxy_page.outcome_table(before, outcomes),
        f"![Pictures, labels, confidence, and what became of them]({PICTURE})",
        "The labels, and the area under the error curve of each confidence (percent, lower is better):",
        proxy_page.quality_table(quality),
    ]
    return "\n\n".join(parts) + "\n"
