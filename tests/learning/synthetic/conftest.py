from pathlib import Path

import numpy as np
import pytest

from training.data.synthetic.assets import Library, load_library
from training.data.synthetic.camera import Camera, aim
from training.data.synthetic.light import Light, Sky
from training.data.synthetic.people import Cast
from training.data.synthetic.render import Tracer
from training.data.synthetic.soup import Soup

ROOT = Path(__file__).parents[3]
SIZE = (48, 64)


@pytest.fixture
def shared() -> Path:
    """The photo and truth collections beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "assets3d").is_dir():
        pytest.skip("no ../shared/data/assets3d beside the checkout")
    return folder


@pytest.fixture(scope="session")
def library() -> Library:
    """A library without any file."""
    return load_library(drawn=1)


@pytest.fixture(scope="session")
def cast(library: Library) -> Cast:
    return Cast(library.characters)


@pytest.fixture(scope="session")
def tracer_of(library: Library):
    """`tracer_of(soup)`: the soup under a grey sky and a sun from behind the camera."""
    grey = (0.5, 0.5, 0.5)
    sky = Sky(grey, grey, grey, 0.0, 0.0, 1.0, grey, np.zeros((2, 2), np.float32), None)
    sun = Light((0.0, 0.6, 0.8), (2.0, 2.0, 2.0), 0.01, sun=True)

    def make(soup: Soup) -> Tracer:
        return Tracer(soup, library.atlas, (sun,), sky)

    return make


@pytest.fixture
def camera() -> Camera:
    """At the origin, looking along -z."""
    return aim(np.zeros(3), 0.0, 0.0, 0.0, 60.0, SIZE)
