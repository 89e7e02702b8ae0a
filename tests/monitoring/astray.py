"""A stereo rig whose right camera sends negatives, and a repository with a stereo network that adapts to it."""

from pathlib import Path

import cv2
import numpy as np

from tests.chaos.fault import Skip
from tests.support.embedded_triton import make_repository

_HEIGHT, _WIDTH = 64, 96


def stereo_repository(directory: Path) -> Path:
    """Tiny networks of the contract, and the real stereo model with weights that have learned nothing."""
    try:
        import safetensors.torch
        import torch

        from training.models.madnet import MADNet
        from training.stereo_export import export_stereo
    except ImportError as error:
        raise Skip("the extra `training` is not installed: the stereo model needs torch") from error
    torch.manual_seed(0)
    weights = directory / "madnet.safetensors"
    safetensors.torch.save_file(MADNet().state_dict(), weights, metadata={"model": "madnet"})
    repository = make_repository(directory / "stereo-repository")
    export_stereo(weights, repository)
    return repository


def negative_pair(seed: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request: rows of black and white, the same however far apart the cameras stand."""
    rows = np.random.default_rng(seed).choice(np.array([0, 255], np.uint8), (_HEIGHT, 1, 1))
    left = np.broadcast_to(rows, (_HEIGHT, _WIDTH, 3))
    parts = []
    for side, pixels in (("left", left), ("right", 255 - left)):
        png = cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()
        head = (
            f'Content-Disposition: form-data; name="{side}"; filename="{side}.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        parts.append(b"--b\r\n" + head.encode() + png + b"\r\n")
    return b"".join(parts) + b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
