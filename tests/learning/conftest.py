import hashlib
import logging
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import training.version as version_module
from service.contract import ModelSpec
from training.config import TrainConfig
from training.data.bank import Bank
from training.data.sample import Sample

ROOT = Path(__file__).parents[2]


# pytest listens to every logger that does not propagate, and as soon as anybody listens to this one torch notes each
# step of an export and the stack that it was taken from.
logging.getLogger("torch.__trace").propagate = True


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def each_network_is_exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exporting takes many seconds: the same network with the same weights, tensors and sizes has the same file."""
    folder, real = tmp_path_factory.mktemp("onnx"), version_module.write_onnx

    def once(network: torch.nn.Module, spec: ModelSpec, stride: int, path: Path) -> None:
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        state = {name: value.detach().numpy() for name, value in tensors.items()}
        plain = [(name, type(each), _plain(each)) for name, each in network.named_modules()]
        asked = pickle.dumps((repr(plain), state, spec.inputs, spec.outputs, spec.sizes, stride))
        kept = folder / f"{hashlib.sha256(asked).hexdigest()}.onnx"
        if not kept.exists():
            real(network, spec, stride, path)
            shutil.copyfile(path, kept)
        else:
            shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(version_module, "write_onnx", once)
        yield


def _plain(module: torch.nn.Module) -> list[tuple[str, object]]:
    kinds = (bool, int, float, str, tuple, list, type(None))
    return sorted((name, value) for name, value in vars(module).items() if isinstance(value, kinds))


@pytest.fixture
def shared() -> Path:
    """The photo and truth collections beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return folder


def make_sample(seed: int, height: int = 96, width: int = 128, source: str = "rooms") -> Sample:
    """A floor that comes nearer towards the bottom, and a red box standing on it that counts as a person."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0.1, 1, height, dtype=np.float32)[:, None]
    inverse = np.repeat(rows, width, axis=1)
    image = np.repeat((rows * 160)[..., None], 3, axis=2).repeat(width, axis=1).astype(np.uint8)
    x, bottom = int(rng.integers(10, width - 40)), int(rng.integers(height // 2, height - 4))
    box = (slice(bottom - height // 3, bottom), slice(x, x + 24))
    image[box] = (220, 30, 30)
    inverse[box] = inverse[bottom][0]
    person = np.zeros((height, width), np.uint8)
    person[box] = 255
    return Sample(f"{source}/{seed}", source, f"{source}/{seed}", image, inverse, person)


@pytest.fixture
def sample_of() -> Callable[..., Sample]:
    return make_sample


@pytest.fixture
def bank() -> Bank:
    samples = [make_sample(seed) for seed in range(4)]
    return Bank(train={"rooms": {s.scene: [s] for s in samples[:3]}}, held_out=samples[3:])


TINY = {
    "model": "focus_on_depth_tiny",
    "encoder_weights": "",
    "encoder_sha256": "",
    "seed": 1,
    "steps": 4,
    "batch": 2,
    "sizes": [[64, 64], [64, 96]],
    "final_sizes": [[96, 64]],
    "final_steps": 1,
    "lr": 0.001,
    "encoder_lr": 0.0005,
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
    "bf16": False,
    "depth_form": "trimmed",
    "trim": 0.2,
    "depth_weight": 1.0,
    "gradient_weight": 0.5,
    "log_weight": 0.0,
    "person_weight": 1.0,
    "dice_weight": 0.5,
    "min_crop": 0.7,
    "max_crop": 1.1,
    "stretch": 1.1,
    "rotation_deg": 5.0,
    "letterbox": 0.2,
    "paste": 0.0,
    "validate_every": 4,
    "checkpoint_every": 2,
    "sources": {"rooms": 1.0},
}


@pytest.fixture
def tiny_values() -> dict:
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    from training.config import parse_config

    return parse_config(dict(TINY), "tiny")


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """The layout of the data folder with three pairs, one of them broken, one mask and two photos."""
    root = tmp_path / "data"
    pairs = root / "rgbd" / "wildrgbd_page"
    pairs.mkdir(parents=True)
    for name in ("w00_0001", "w00_0002", "w01_0001"):
        sample = make_sample(int(name[-1]))
        cv2.imwrite(str(pairs / f"{name}.jpg"), sample.image[..., ::-1])
        cv2.imwrite(str(pairs / f"{name}.inv8.png"), (sample.inverse_depth * 255).astype(np.uint8))
    (pairs / "w00_0002.jpg").write_bytes(b"not a picture")
    rooms = root / "rgbd" / "synth_room"
    rooms.mkdir()
    cv2.imwrite(str(rooms / "0000.jpg"), make_sample(7).image)
    cv2.imwrite(str(rooms / "0000.depth.png"), np.full((96, 128), 2000, np.uint16))
    unknown_offset = root / "rgbd" / "da3_page"
    unknown_offset.mkdir()
    cv2.imwrite(str(unknown_offset / "a_0.jpg"), make_sample(7).image)
    cv2.imwrite(str(unknown_offset / "a_0.dep8.png"), np.full((96, 128), 20, np.uint8))
    masks = root / "truth_person" / "humanseg"
    masks.mkdir(parents=True)
    cv2.imwrite(str(masks / "1.jpg"), make_sample(3).image[..., ::-1])
    cv2.imwrite(str(masks / "1_mask.png"), make_sample(3).person)
    (root / "truth_person" / "index.json").write_text(
        '[{"rgb": "truth_person/humanseg/1.jpg", "mask": "truth_person/humanseg/1_mask.png", "set": "humanseg"},'
        ' {"rgb": "truth_person/ccp/2.jpg", "mask": "truth_person/ccp/2_mask.png", "set": "ccp"}]'
    )
    for name in ("imagenet/cat", "bsds/street"):
        photo = root / "photos" / f"{name}.jpg"
        photo.parent.mkdir(parents=True)
        cv2.imwrite(str(photo), make_sample(5).image)
    return root
