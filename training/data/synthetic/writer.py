"""Files of one rendered scene, written so that a scene is whole or absent: its JSON comes last, by renaming.

    s01000000.json       what follows, and how to read it
    s01000000.jpg        picture, sRGB; with stereo s01000000.right.jpg
    s01000000.inv.png    inverse depth, 16 bit: stored * inverse_depth_scale_per_m = 1/m along the optical axis; 0 = sky
    s01000000.person.png share of the pixel that shows a person, 0..255; absent when there is nobody
    s01000000.disp.png   stereo: disparity of the left picture, 16 bit: stored * disparity_scale_px = pixels; 0 = sky
    s01000000.occ.png    stereo: 255 where the right camera does not see what the left one sees

1000 seeds share a folder.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from training.data.synthetic.stereo import disparity_px

if TYPE_CHECKING:
    from training.data.synthetic.generator import Rendering

CODE_VERSION = 2
"""Raised with every change of what a seed looks like."""
_LEVELS = 65535
_SEEDS_PER_FOLDER = 1000


def scene_path(root: Path, seed: int) -> Path:
    """The JSON file of a seed below `root`."""
    return root / f"{seed // _SEEDS_PER_FOLDER:05d}" / f"s{seed:08d}.json"


def is_written(root: Path, seed: int) -> bool:
    """Whether the seed's scene is complete."""
    return scene_path(root, seed).is_file()


def write_scene(root: Path, rendering: "Rendering") -> Path:
    """Writes the files of a scene; the path of its JSON."""
    scene, view = rendering.scene, rendering.view
    path = scene_path(root, scene.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.stem}.*"):  # left by a run that was stopped
        old.unlink()
    quality = [cv2.IMWRITE_JPEG_QUALITY, scene.finish.jpeg_quality]
    scale = max(float(view.inverse_depth.max()), 1e-6) / _LEVELS
    height, width = scene.camera.size
    about: dict[str, Any] = {
        "seed": scene.seed,
        "attempt": scene.attempt,
        "kind": scene.kind,
        "code_version": CODE_VERSION,
        "terms": scene.terms,
        "height": height,
        "width": width,
        "focal_px": scene.camera.focal_px,
        "centre_px": list(scene.camera.centre_px),
        "camera_height_m": float(scene.camera.position[1]),
        "pitch_rad": scene.shot.pitch_rad,
        "inverse_depth_scale_per_m": scale,
        "inverse_depth_zero": "sky",
        "person_share": float(view.person.mean() / 255),
    }
    _write(path.with_suffix(".jpg"), rendering.image[..., ::-1], quality)
    _write(path.with_suffix(".inv.png"), _levels(view.inverse_depth, scale))
    if view.person.any():
        _write(path.with_suffix(".person.png"), view.person)
    if rendering.right is not None and rendering.occluded is not None:
        disparity = disparity_px(view.inverse_depth, scene.camera.focal_px * scene.shot.baseline_m)
        disparity_scale = max(float(disparity.max()), 1e-6) / _LEVELS
        about |= {"baseline_m": scene.shot.baseline_m, "disparity_scale_px": disparity_scale}
        _write(path.with_suffix(".right.jpg"), rendering.right[..., ::-1], quality)
        _write(path.with_suffix(".disp.png"), _levels(disparity, disparity_scale))
        _write(path.with_suffix(".occ.png"), rendering.occluded.astype(np.uint8) * 255)
    _replace(path, json.dumps(about, indent=1).encode() + b"\n")
    return path


def _levels(values: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.uint16]:
    """Rounded to 16 bit; what is not 0 stays at least 1."""
    stored = np.rint(values / scale)
    return np.where(values > 0, stored.clip(1, _LEVELS), 0).astype(np.uint16)


def _write(path: Path, pixels: npt.NDArray[np.generic], options: list[int] | None = None) -> None:
    done, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options or [])
    assert done, path
    _replace(path, encoded.tobytes())


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)
