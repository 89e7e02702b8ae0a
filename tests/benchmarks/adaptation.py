"""`make bench-adaptation`: what online adaptation is worth, and what it costs, into docs/results/stereo.md.

The trained base network goes along drawn sequences of domains it was not trained on, in modes NONE, FULL and MAD, under
photometric and under proxy supervision. Every frame is judged as predicted, before anything was learned from it.
Learning rates are chosen first, for each mode, on sequences of other seeds. Real sequences, where they are, have no
truth: their photometric error is told.
"""

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import torch
from matplotlib import pyplot
from PIL import Image
from tqdm import tqdm

from training.adaptation import AdaptationConfig, Adapter, Mode, Supervision
from training.data.stereo_pairs import StereoFrame, layered_sequence, reduced, stereo_truth
from training.losses_stereo import photometric
from training.models import create_model
from training.stereo_evaluation import frames_of, judge_pairs, load_stereo_network, moving_average, run_sequence
from training.tasks.stereo import drawn

from .__main__ import RESULTS, ROOT, machine

DOMAINS = ("dusk", "textures", "fog", "noise", "night")
SUPERVISIONS: tuple[Supervision, ...] = ("photometric", "proxy")
MODES: tuple[Mode, ...] = ("none", "full", "mad")
RATES = {
    ("full", "photometric"): (1e-4, 1e-3, 3e-3),
    ("mad", "photometric"): (1e-4, 1e-3, 3e-3),
    ("full", "proxy"): (1e-3, 3e-3, 1e-2, 3e-2),
    ("mad", "proxy"): (3e-4, 1e-3, 3e-3, 1e-2),
}
"""Under labels the loss of MAD is ten times that of FULL: `PROXY_SCALE`."""
POLICIES = (("fixed", 3), ("fixed", 2), ("fixed", 4), ("reward", 4), ("random", 4), ("sequential", 4), ("argmax", 4))
"""With the group of `fixed`; the others make nothing of it."""
GAINING = "dusk"
"""The domain where adapting gains anything: it has all seeds, the others one."""
TUNING_SEED, TEST_SEED = 7000, 8000
TUNING_FRAMES = 40
FIRST = 20
REAL_RATE = POLICY_RATE = 1e-3
SIZE = (128, 256)
_GAIN, _TIME = 0.7, 0.6
_WIDTH = 256  # of real pairs
_PAPERS = """| network | adaptation | D1-all % | EPE px | frames/s |
| --- | --- | ---: | ---: | ---: |
| DispNetC | none | 9.09 | 1.58 | 15.85 |
| DispNetC | FULL | 3.45 | 1.04 | 5.22 |
| MADNet | none | 38.84 | 11.65 | 39.48 |
| MADNet | FULL | 2.17 | 0.91 | 14.26 |
| MADNet | MAD | 3.37 | 1.11 | 25.43 |
| MADNet, tuned on KITTI's truth | none | 2.67 | 0.89 | 39.48 |
"""


@dataclass(frozen=True)
class Run:
    """One sequence in one mode; `domain` is a folder for real ones."""

    domain: str
    seed: int
    frames: int
    mode: Mode
    supervision: Supervision = "photometric"
    lr: float = 0.0
    policy: str = "fixed"
    group: int = 3

    @property
    def key(self) -> str:
        values = asdict(self)
        if self.mode != "mad":  # nothing to choose; runs of earlier versions are called so
            values |= {"policy": "reward", "group": 4}
        group = values.pop("group")
        told = [*map(str, values.values()), *([str(group)] if self.policy == "fixed" and group != 4 else [])]
        return "-".join(told).replace("/", "_")


@dataclass(frozen=True)
class Course:
    """What came of a run, frame by frame; errors are empty without truth."""

    epe: list[float]
    d1: list[float]
    loss: list[float]
    cpu_s: list[float]
    resets: int


def frames_for(run: Run) -> Iterable[StereoFrame]:
    """Of a drawn domain or a folder."""
    if run.domain in DOMAINS:
        return layered_sequence(run.domain, run.seed, run.frames, SIZE)  # type: ignore[arg-type]  # a name of DOMAINS
    return frames_of(run.domain, run.frames, _WIDTH)


def course_of(run: Run, weights: Path, kept: Path) -> Course:
    """Runs it, or reads what an earlier call found."""
    file = kept / f"{run.key}.json"
    if file.exists():
        return Course(**json.loads(file.read_text()))
    torch.set_num_threads(1)
    network = load_stereo_network(weights)
    config = AdaptationConfig(
        mode=run.mode,
        supervision=run.supervision,
        policy=run.policy,  # type: ignore[arg-type]  # policies are named below
        fixed_group=run.group,
        lr=run.lr or 1e-4,
    )
    losses: list[float] = []

    def shown(_number: int, frame: StereoFrame, adapted: Any) -> None:
        pair = torch.from_numpy(frame.left[None]), torch.from_numpy(frame.right[None])
        losses.append(float(photometric(*pair, torch.from_numpy(adapted.disparity_px[None]))))

    rows = list(run_sequence(network, frames_for(run), config, shown=shown))
    judged = [row.metrics for row in rows if row.metrics is not None]
    found = Course(
        epe=[row.epe for row in judged],
        d1=[row.d1 for row in judged],
        loss=losses,
        cpu_s=[row.cpu_s for row in rows],
        resets=sum(row.adapted.reset is not None for row in rows),
    )
    file.write_text(json.dumps(asdict(found)))
    return found


def all_of(runs: Sequence[Run], weights: Path, kept: Path, jobs: int, title: str) -> dict[Run, Course]:
    """Courses of all runs, `jobs` at a time."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = pool.imap(partial(course_of, weights=weights, kept=kept), runs)
        return dict(zip(runs, tqdm(found, title, total=len(runs), unit="run", mininterval=2), strict=True))


Rates = dict[tuple[str, str, str], float]
"""By domain, mode and supervision."""


def chosen_rates(weights: Path, kept: Path, jobs: int) -> tuple[Rates, str]:
    """The rates with the least mean EPE on the tuning sequences; and the table."""
    seeds = {domain: TUNING_SEED + number for number, domain in enumerate(DOMAINS)}
    none = {domain: Run(domain, seed, TUNING_FRAMES, "none") for domain, seed in seeds.items()}
    runs = [
        Run(domain, seed, TUNING_FRAMES, mode, supervision, lr)
        for domain, seed in seeds.items()
        for supervision in SUPERVISIONS
        for mode in MODES[1:]
        for lr in RATES[mode, supervision]
    ]
    found = all_of([*none.values(), *runs], weights, kept, jobs, "rates")
    mean = {run: float(np.mean(course.epe)) for run, course in found.items()}
    rates: Rates = {}
    rows = [
        "| mode | supervision | rate | " + " | ".join(DOMAINS) + " |",
        "| --- | --- | ---: |" + " ---: |" * len(DOMAINS),
    ]
    rows.append("| NONE | | | " + " | ".join(f"{mean[none[domain]]:.2f}" for domain in DOMAINS) + " |")
    for supervision in SUPERVISIONS:
        for mode in MODES[1:]:
            tried = [run for run in runs if (run.mode, run.supervision) == (mode, supervision)]
            for domain in DOMAINS:
                best = min((run for run in tried if run.domain == domain), key=lambda run: mean[run])
                rates[domain, mode, supervision] = best.lr
            for lr in RATES[mode, supervision]:
                cells = []
                for domain in DOMAINS:
                    run = Run(domain, seeds[domain], TUNING_FRAMES, mode, supervision, lr)
                    bold = "**" if rates[domain, mode, supervision] == lr else ""
                    cells.append(f"{bold}{mean[run]:.2f}{bold}")
                rows.append(f"| {mode.upper()} | {supervision} | {lr:g} | " + " | ".join(cells) + " |")
    return rates, "\n".join(rows) + "\n"


def sequence_table(found: dict[Run, Course]) -> str:
    """A row for each drawn sequence, mode and supervision."""
    rows = [
        "| sequence | mode | supervision | EPE px | D1 % | EPE, last half | D1, last half | EPE, first 20 "
        "| CPU ms a frame | frames/s of one core | resets |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run, course in found.items():
        half = len(course.epe) // 2
        cpu = statistics.median(course.cpu_s)
        said = "" if run.mode == "none" else run.supervision
        rows.append(
            f"| {run.domain}:{run.seed} | {run.mode.upper()} | {said} | {np.mean(course.epe):.2f} | "
            f"{100 * np.mean(course.d1):.1f} | {np.mean(course.epe[half:]):.2f} | "
            f"{100 * np.mean(course.d1[half:]):.1f} | "
            f"{np.mean(course.epe[:FIRST]):.2f} | {1e3 * cpu:.0f} | {1 / cpu:.1f} | {course.resets} |"
        )
    return "\n".join(rows) + "\n"


def kept_gain(found: dict[Run, Course]) -> str:
    """How much of FULL's gain MAD keeps, and for how much of its time, in each domain."""
    rows = [
        "| domain | supervision | EPE px: NONE, FULL, MAD | D1 %: NONE, FULL, MAD | MAD keeps of FULL's gain: EPE | D1 "
        "| time a frame, MAD / FULL | less the prediction |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for domain in DOMAINS:
        for supervision in SUPERVISIONS:
            courses = {
                run.mode: [c for r, c in found.items() if (r.domain, r.mode, r.supervision) == run_key(run)]
                for run in found
                if run.domain == domain and (run.mode == "none" or run.supervision == supervision)
            }
            mean = {
                measure: [statistics.mean(float(np.mean(getattr(c, measure))) for c in courses[mode]) for mode in MODES]
                for measure in ("epe", "d1")
            }
            cpu = [statistics.mean(float(np.mean(c.cpu_s)) for c in courses[mode]) for mode in MODES]
            rows.append(
                f"| {domain} | {supervision} | {', '.join(f'{value:.2f}' for value in mean['epe'])} | "
                f"{', '.join(f'{100 * value:.1f}' for value in mean['d1'])} | {share_of_gain(*mean['epe'])} | "
                f"{share_of_gain(*mean['d1'])} | {cpu[2] / cpu[1]:.0%} | {(cpu[2] - cpu[0]) / (cpu[1] - cpu[0]):.0%} |"
            )
    return "\n".join(rows) + f"\n\nAimed at: at least {_GAIN:.0%} of the gain in at most {_TIME:.0%} of the time.\n"


def run_key(run: Run) -> tuple[str, str, str]:
    """What runs of several seeds share."""
    return run.domain, run.mode, run.supervision


def share_of_gain(none: float, full: float, mad: float) -> str:
    """MAD's gain over FULL's; a dash where FULL gains less than a twentieth, for then there is nothing to keep."""
    return f"**{(none - mad) / (none - full):.0%}**" if none - full > 0.05 * none else "-"


def plot(found: dict[Run, Course], path: Path) -> None:
    """EPE over time, and D1 below it, of each sequence; NONE, and FULL and MAD under both supervisions."""
    sequences = list(dict.fromkeys((run.domain, run.seed) for run in found))
    columns = 4
    rows = 2 * -(-len(sequences) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(16, 2.7 * rows), squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for number, (domain, seed) in enumerate(sequences):
        pair = panels[2 * (number // columns) :, number % columns][:2]
        for axes, measure, label in zip(pair, ("epe", "d1"), ("EPE, pixels", "D1, share"), strict=True):
            for run, course in found.items():
                if (run.domain, run.seed) != (domain, seed):
                    continue
                style = "-" if run.supervision == "photometric" else "--"
                said = run.mode.upper() + ("" if run.mode == "none" else f", {run.supervision}")
                values = moving_average(getattr(course, measure))
                axes.plot(values, style, color=f"C{MODES.index(run.mode)}", label=said, linewidth=1.2)
            axes.axis("on")
            axes.set(title=f"{domain}:{seed}", xlabel="frame", ylabel=label, ylim=(0, None))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower right", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)  # a page's picture is below 100 KB


def pictures(weights: Path, rates: Rates, path: Path, frames: int) -> None:
    """First, a fifth and last frame of the domain that gains: left, right, NONE, FULL, MAD (labels), truth."""
    torch.set_num_threads(1)
    network = load_stereo_network(weights)
    adapters = [
        Adapter(network, AdaptationConfig(mode=mode, supervision="proxy", lr=rates.get((GAINING, mode, "proxy"), 1e-4)))
        for mode in MODES
    ]
    rows = []
    for number, frame in enumerate(frames_for(Run(GAINING, TEST_SEED, frames, "none"))):
        found = [adapter.step(frame.left, frame.right).disparity_px for adapter in adapters]
        if number in (0, frames // 5, frames - 1):
            assert frame.disparity_px is not None  # drawn ones have truth
            brightest = float(np.percentile(frame.disparity_px, 98))
            seen = [
                np.minimum(picture.astype(np.int32) * 8, 255).astype(np.uint8) for picture in (frame.left, frame.right)
            ]
            rows.append(np.hstack([*seen, *[drawn(values, brightest) for values in (*found, frame.disparity_px)]]))
    pyplot.imsave(path, np.vstack(rows), pil_kwargs={"quality": 85})


def real_table(runs: dict[Run, Course]) -> str:
    """Photometric error of real sequences: first and last quarter."""
    rows = [
        "| sequence | frames | mode | supervision | photometric error | first quarter | last quarter | resets |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for run, course in runs.items():
        quarter = max(len(course.loss) // 4, 1)
        said = "" if run.mode == "none" else run.supervision
        rows.append(
            f"| {Path(run.domain).name} | {len(course.loss)} | {run.mode.upper()} | {said} | "
            f"{np.mean(course.loss):.4f} | "
            f"{np.mean(course.loss[:quarter]):.4f} | {np.mean(course.loss[-quarter:]):.4f} | {course.resets} |"
        )
    return "\n".join(rows) + "\n"


def base_table(weights: Path, data: Path | None) -> str:
    """Errors of the base as it is: held-out clean worlds, the domains, real pairs."""
    torch.set_num_threads(2)
    network = load_stereo_network(weights)
    rows = ["| set | pairs | EPE px | bad3 % | D1-all % |", "| --- | ---: | ---: | ---: | ---: |"]
    sets: dict[str, list[StereoFrame]] = {
        f"drawn, {domain}": [
            frame
            for seed in range(9000, 9020)
            for frame in layered_sequence(domain, seed, 1, SIZE)  # type: ignore[arg-type]  # as above
        ]
        for domain in ("clean", *DOMAINS)
    }
    if data is not None:
        for name, frame in stereo_truth(data):
            sets.setdefault(f"{name}, {_WIDTH} wide", []).append(reduced(frame, _WIDTH))
    for name, frames in sets.items():
        found = judge_pairs(network, frames)
        rows.append(
            f"| {name} | {len(frames)} | {found['epe']:.2f} | {100 * found['bad3']:.1f} | {100 * found['d1']:.1f} |"
        )
    return "\n".join(rows) + "\n"


def dispnet_table(frames: int) -> str:
    """Times of DispNetC beside MADNet; its weights are random, which times do not see."""
    torch.set_num_threads(1)
    rows = ["| network | mode | CPU ms a frame | frames/s of one core |", "| --- | --- | ---: | ---: |"]
    sequence = list(layered_sequence("night", TUNING_SEED, frames, SIZE))
    for name in ("madnet_normalised", "dispnetc"):
        torch.manual_seed(0)
        network = create_model(name).eval()
        for mode in MODES if name != "dispnetc" else MODES[:2]:
            config = AdaptationConfig(mode=mode, lr=1e-9)
            cpu = statistics.median(row.cpu_s for row in run_sequence(network, sequence, config))
            rows.append(f"| {name} | {mode.upper()} | {1e3 * cpu:.0f} | {1 / cpu:.1f} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Runs what is not there yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=ROOT / "training" / "weights" / "stereo_madnet.safetensors")
    parser.add_argument("--data", type=Path, help="data folder with truth_depth and stereo_seq")
    parser.add_argument("--frames", type=int, default=150, help="of a sequence (default 150)")
    parser.add_argument("--seeds", type=int, default=3, help=f"sequences of {GAINING} (default 3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once, one thread each")
    parser.add_argument(
        "--kept", type=Path, default=ROOT / "runs" / "adaptation", help="folder of what was found so far"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "stereo.md")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    said = machine()
    rates, rate_table = chosen_rates(options.weights, options.kept, options.jobs)

    def runs_on(domain: str, seed: int, frames: int) -> list[Run]:
        learning = [
            Run(domain, seed, frames, mode, supervision, rates.get((domain, mode, supervision), REAL_RATE))
            for supervision in SUPERVISIONS
            for mode in MODES[1:]
        ]
        return [Run(domain, seed, frames, "none"), *learning]

    drawn_runs = [
        run
        for number, domain in enumerate(DOMAINS)
        for repeat in range(options.seeds if domain == GAINING else 1)
        for run in runs_on(domain, TEST_SEED + number + 100 * repeat, options.frames)
    ]
    found = all_of(drawn_runs, options.weights, options.kept, options.jobs, "sequences")
    policy_runs = [
        Run(GAINING, TUNING_SEED, options.frames // 2, "mad", "proxy", POLICY_RATE, policy, group)
        for policy, group in POLICIES
    ]
    policies = all_of(policy_runs, options.weights, options.kept, options.jobs, "policies")
    real: dict[Run, Course] = {}
    if options.data is not None:
        folders = sorted(path for path in (options.data / "stereo_seq").iterdir() if path.is_dir())
        real_runs = [run for folder in folders for run in runs_on(str(folder), 0, options.frames)]
        real = all_of(real_runs, options.weights, options.kept, options.jobs, "real")
    picture = options.out.with_name(f"{options.out.stem}.png")
    plot(found, picture)
    before_after = options.out.with_name(f"{options.out.stem}_pictures.jpg")
    pictures(options.weights, rates, before_after, options.frames)
    height, width = SIZE
    policy_rows = [
        f"| {run.policy}{f', group {run.group}' if run.policy == 'fixed' else ''} | {np.mean(course.epe):.2f} | "
        f"{100 * np.mean(course.d1):.1f} | {1e3 * np.mean(course.cpu_s):.0f} | {course.resets} |"
        for run, course in policies.items()
    ]
    parts = [
        f"`make bench-adaptation`: {said}, one thread a run, {options.jobs} runs at once.\n",
        f"## The base network\n\nErrors in pixels of pictures {width} x {height} (drawn) or {_WIDTH} wide (real).\n",
        base_table(options.weights, options.data),
        f"## What MAD keeps of FULL\n\n{options.frames} frames of each of {options.seeds} sequences of {GAINING} and "
        "one of each other domain; means over all frames of all of them.\n",
        kept_gain(found),
        "## Sequence by sequence\n",
        sequence_table(found),
        f"![EPE and D1 over time]({picture.name})\n\nFrames 0, {options.frames // 5} and {options.frames - 1} of "
        f"{GAINING}:{TEST_SEED}: left and right, eight times as bright, NONE, FULL, MAD (labels), "
        f"truth.\n\n![Before and after]({before_after.name})\n",
        f"## How MAD chooses\n\n{GAINING}:{TUNING_SEED}, {options.frames // 2} frames, labels, rate {POLICY_RATE:g}; "
        "group 0 is the coarsest. All tables but this one are of `fixed, group 3`.\n",
        "| policy | EPE px | D1 % | CPU ms a frame | resets |\n| --- | ---: | ---: | ---: | ---: |\n"
        + "\n".join(policy_rows)
        + "\n",
        "## Real sequences\n\nWithout truth: the photometric error of what was predicted, before learning from it.\n",
        real_table(real) if real else "Not run: no data folder was given.\n",
        f"## Learning rates\n\nChosen on other worlds ({TUNING_FRAMES} frames of seeds {TUNING_SEED} on), by mean "
        f"EPE; real sequences take {REAL_RATE:g}.\n",
        rate_table,
        f"## DispNetC, the slow peer\n\nTimes at {width} x {height}, random weights.\n",
        dispnet_table(9),
        "## The papers\n\nKITTI raw, on a GTX 1080Ti (Tonioni et al., CVPR 2019):\n",
        _PAPERS,
    ]
    text = (
        options.out.read_text() if options.out.exists() else "# Stereo: a network that adapts to the stream it sees\n"
    )
    before, _, _ = text.partition("<!-- results: ")
    options.out.write_text(
        before + "<!-- results: written by the command, the text above by hand -->\n\n" + "\n".join(parts)
    )


if __name__ == "__main__":
    main()
