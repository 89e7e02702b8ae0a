"""`make bench-streams`: flicker, lag and speed of `WS /frames` on rendered videos, into docs/results/streams.md.

Each scene is rendered three times over: standing still, with the camera moving sideways, with one thing moving. The
frames get noise and a drift of brightness, go through the running gateway and the shipped network as JPEG files, once
with `steady=on` and once with `steady=off`, which is every frame for itself.
"""

import argparse
import io
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.use("Agg")

from matplotlib import pyplot
from PIL import Image

from service.benchmark.serving import serving
from service.imaging import codec
from service.imaging.geometry import resize
from tests.support.streaming import streaming
from training.data.synthetic.assets import load_library
from training.data.synthetic.camera import Finish, develop, exposure
from training.data.synthetic.people import Cast
from training.data.synthetic.render import Tracer
from training.data.synthetic.scene import ATTEMPTS, acceptable, build_scene

from .__main__ import RESULTS, ROOT, machine

Floats = npt.NDArray[np.float32]

SCENES = {"room": 11, "close_person": 12}
SIZE = (288, 384)
STILL, MOVING = 24, 16
SETTLED = 8
"""Frames after which the running map has its average; earlier ones are left out of the figures."""
_DRIFT, _DRIFT_FRAMES = 0.15, 6
_NOISE = 0.02
_STEP_M, _STEP_PX = 0.02, 4.0
_LARGE_SHARE, _HUGE_SHARE = 0.02, 0.25
_LAGS = 4
_ROUNDS = 20


@dataclass(frozen=True)
class Video:
    """Radiance float16 (n, H, W, 3), inverse depth float32 (n, H, W) in 1/m."""

    radiance: npt.NDArray[np.float16]
    truth: Floats


@dataclass(frozen=True)
class Scene:
    """One scene's videos, and what its camera does to them."""

    videos: dict[str, Video]
    gain: float
    finish: Finish


def render(kind: str, seed: int, assets: Path | None) -> Scene:
    """Render a scene: still (one picture), camera moving, one object moving."""
    library = load_library(assets, (), ())
    cast = Cast(library.characters)
    for attempt in range(ATTEMPTS):
        scene = build_scene(seed, library, cast, SIZE, attempt, kind)
        tracer = Tracer(scene.soup, library.atlas, scene.shot.lights, scene.shot.sky)
        view = tracer.view(scene.camera, np.random.default_rng(seed))
        if acceptable(scene, view):
            break
    cameras = [tracer.view(scene.camera.moved_right(_STEP_M * i), np.random.default_rng(5)) for i in range(MOVING)]
    names, areas = np.unique(view.objects, return_counts=True)
    person = [int((view.person[view.objects == name] > 127).sum()) for name in names]
    fits = (names > 0) & (areas > _LARGE_SHARE * view.objects.size) & (areas < _HUGE_SHARE * view.objects.size)
    sizes = np.where(fits, areas, 0)
    chosen = names[np.argmax(person) if max(person) else np.argmax(sizes)]
    member = scene.soup.objects == chosen
    distance_m = 1 / max(1e-3, float(np.median(view.inverse_depth[view.objects == chosen])))
    step = scene.camera.axes[0] * _STEP_PX / scene.camera.focal_px * distance_m
    things = []
    for index in range(MOVING):
        corners = scene.soup.corners.copy()
        corners[member] += (step * (index - MOVING / 2)).astype(np.float32)
        moved = Tracer(replace(scene.soup, corners=corners), library.atlas, scene.shot.lights, scene.shot.sky)
        things.append(moved.view(scene.camera, np.random.default_rng(5)))
    videos = {"still": [view], "camera": cameras, "object": things}
    finish = replace(scene.finish, noise=0.0, blur_px=0.4, vignette=0.0)
    return Scene(
        {
            name: Video(
                np.stack([each.radiance for each in views]).astype(np.float16),
                np.stack([each.inverse_depth for each in views]),
            )
            for name, views in videos.items()
        },
        exposure(view.radiance),
        finish,
    )


def photographed(scene: Scene, name: str) -> list[bytes]:
    """JPEG files of a video, noisy, its brightness drifting by 15 % either way."""
    rng = np.random.default_rng(3)
    video = scene.videos[name]
    count = STILL if name == "still" else MOVING
    files = []
    for index in range(count):
        light = video.radiance[min(index, len(video.radiance) - 1)].astype(np.float32)
        drift = 1 + _DRIFT * np.sin(index / _DRIFT_FRAMES)
        finish = replace(scene.finish, noise=_NOISE, brightness=scene.finish.brightness * float(drift))
        files.append(codec.encode_image(develop(light, scene.gain, finish, rng), "jpeg", 95))
    return files


def depth_of(port: int, files: list[bytes], steady: str) -> tuple[Floats, list[str | None]]:
    """The stream's maps (n, h, w) of the network's size, and the resets."""
    maps, resets = [], []
    with streaming(
        ("127.0.0.1", port), f"task=depth&format=npy&size=native&drop=none&timeout=120&steady={steady}"
    ) as stream:
        for file in files:
            stream.send(file)
            heard = stream.hear()
            assert heard.body, heard.words
            maps.append(np.load(io.BytesIO(heard.body)))
            resets.append(heard.words["reset"])
        stream.ended()
    return np.stack(maps), resets


def flicker(maps: Floats) -> float:
    """Mean absolute change from frame to frame."""
    return float(np.abs(np.diff(maps[SETTLED:], axis=0)).mean())


def lag(maps: Floats, reference: Floats) -> float:
    """Frames by which the changes of `maps` come behind those of `reference`: the peak of their cross-correlation."""
    late, early = np.diff(maps, axis=0), np.diff(reference, axis=0)
    count = len(late)
    scores = []
    for shift in range(-_LAGS, _LAGS + 1):
        a, b = late[max(0, shift) : count + min(0, shift)], early[max(0, -shift) : count - max(0, shift)]
        scores.append(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))
    peak = int(np.argmax(scores))
    if peak in (0, len(scores) - 1):
        return float(peak - _LAGS)
    left, top, right = scores[peak - 1 : peak + 2]
    return peak - _LAGS + 0.5 * (left - right) / (left - 2 * top + right)


def speed(port: int, query: str, file: bytes) -> tuple[float, float, float]:
    """Frames a second with one frame waiting, and the median and the 95th percentile of the time to answer, in ms."""
    with streaming(("127.0.0.1", port), f"{query}&drop=none&queue=2&timeout=120") as stream:
        stream.send(file, file)
        begun, times = 0.0, []
        for index in range(_ROUNDS):
            stream.send(file)
            heard = stream.hear().words
            if index == 4:
                begun = time.perf_counter()
            elif index > 4:
                times.append(sum(heard["timing_ms"].values()))
        elapsed_s = time.perf_counter() - begun
        stream.ended()
    return len(times) / elapsed_s, statistics.median(times), float(np.percentile(times, 95))


TASKS = {
    "depth, network's size, npy": "task=depth&size=native&format=npy",
    "depth, 640 x 480, png16": "task=depth",
    "depth, 640 x 480, JPEG preview": "task=depth&format=jpeg",
    "segmentation, 640 x 480, png": "task=segmentation",
    "focus, 640 x 480, JPEG": "task=focus",
    "focus, 640 x 480, JPEG, edges=sharp": "task=focus&edges=sharp",
    "focus, max_side=384, JPEG": "task=focus&max_side=384",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--assets", type=Path, help="models and textures; drawn ones without")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    said = machine()
    scenes = {name: render(name, SCENES[name], options.assets) for name in options.scenes}
    report(options.repository, scenes, options.out, said)


def report(repository: Path, scenes: dict[str, Scene], out: Path, said: str) -> None:
    """Measure, and write page and plot."""
    rows, curves = [], {}
    with serving(repository) as served:
        port = served.port
        for name, scene in scenes.items():
            maps = {}
            for video in scene.videos:
                files = photographed(scene, video)
                maps[video, "off"], _ = depth_of(port, files, "off")
                maps[video, "on"], resets = depth_of(port, files, "on")
                assert resets == ["start"] + [None] * (len(files) - 1), resets
            own, calm = maps["still", "off"], maps["still", "on"]
            span = float(np.ptp(np.percentile(own, (2, 98))))
            stretched = np.stack([(frame - frame.min()) / np.ptp(frame) for frame in own])
            lags = [lag(maps[video, "on"][2:], maps[video, "off"][2:]) for video in ("camera", "object")]
            truth = scene.videos["object"].truth
            small = np.stack([_reduced(frame, own.shape[1:]) for frame in truth])
            behind = [lag(maps["object", way][2:], small[2:]) for way in ("off", "on")]
            rows.append(
                f"| {name} | {flicker(own) / span:.4f} | {flicker(stretched):.4f} | {flicker(calm) / span:.4f} | "
                f"**{flicker(calm) / flicker(own):.2f}** | {lags[0]:+.2f} | **{lags[1]:+.2f}** | {behind[0]:+.2f} | "
                f"{behind[1]:+.2f} |"
            )
            curves[name] = (own, calm, maps["object", "off"], maps["object", "on"], small)
        file = photographed(next(iter(scenes.values())), "still")[0]
        photo = codec.encode_image(_enlarged(file), "jpeg", 90)
        speeds = {task: speed(port, query, photo) for task, query in TASKS.items()}
    plot(curves, out / "streams.png")
    (out / "streams.md").write_text(page(said, rows, speeds))
    print((out / "streams.md").read_text())


def _reduced(frame: Floats, size: tuple[int, ...]) -> Floats:
    return resize(frame, (size[0], size[1]))


def _enlarged(file: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB").resize((640, 480)))


def page(said: str, rows: list[str], speeds: dict[str, tuple[float, float, float]]) -> str:
    """The results as Markdown."""
    table = "\n".join(
        f"| {task} | {rate:.1f} | {median:.0f} | {late:.0f} |" for task, (rate, median, late) in speeds.items()
    )
    noise, step_cm = round(_NOISE * 255), round(_STEP_M * 100)
    return f"""# Frame streams

`make bench-streams`: {said}.

Rendered videos of {SIZE[1]} x {SIZE[0]} through the running gateway and the shipped network, as JPEG of quality 95,
with noise of {noise} levels at middle gray and brightness drifting by {_DRIFT:.0%} either way: {STILL} frames standing
still, {MOVING} with the camera moving {step_cm} cm a frame sideways, {MOVING} with one thing moving {_STEP_PX:.0f}
pixels a frame. `steady=off` is every frame for itself, `on` is what a stream does. The scenes are made of CC0 models
and textures where there are any (`--assets`), else of drawn ones.

## Flicker and lag
Flicker: mean absolute change from frame to frame where nothing moves, as a share of the map's range (2nd to 98th
percentile); *stretched* is what a map looks like that is brought to 0..1 by itself, as `POST /depth` stores it. The
ratio compares with the network's own values. Lag: frames by which changes come behind, from the peak of the
cross-correlation of all pixels' changes, against `off` and against the rendered truth.

| scene | still, off | off, stretched | still, on | on / off | camera, lag | object, lag | off to truth | on to truth |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

![A row of the map over time, and the change from frame to frame](streams.png)

The aim: on / off at most 0.5, lag less than 1.

## Speed
One stream, JPEG frames of 640 x 480, two on their way at any time. Time to answer is the sum of the stages of one frame
without its wait for the one before. Where the first line states a load above the number of cores, other work ran
beside, and these are figures of a busy machine.

| task | frames/s | time to answer, median ms | 95 % ms |
|---|---|---|---|
{table}
"""


def plot(curves: dict[str, tuple[Floats, ...]], path: Path) -> None:
    """Per scene: change by frame while still, and the map's row through the moving thing, over time."""
    figure, axes = pyplot.subplots(len(curves), 4, figsize=(12, 2.7 * len(curves)), squeeze=False, layout="constrained")
    for row, (name, (own, calm, off, on, truth)) in zip(axes, curves.items(), strict=True):
        span = float(np.ptp(np.percentile(own, (2, 98))))
        for maps, label in ((own, "off"), (calm, "on")):
            row[0].plot(np.abs(np.diff(maps, axis=0)).mean(axis=(1, 2)) / span, label=f"steady={label}")
        row[0].set(title=f"{name}: change, standing still", xlabel="frame", ylim=(0, None))
        row[0].legend(fontsize=7)
        line = int(np.abs(np.diff(truth, axis=0)).sum(axis=(0, 2)).argmax())
        for axis, maps, label in ((row[1], off, "off"), (row[2], on, "on"), (row[3], truth, "truth")):
            axis.imshow(maps[:, line], aspect="auto", cmap="magma", interpolation="nearest")
            axis.set(title=f"row {line}, object moves: {label}", xlabel="column", ylabel="frame")
    figure.savefig(path, dpi=65)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
