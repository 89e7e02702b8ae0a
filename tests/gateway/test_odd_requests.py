"""Every odd file beside the checkout through the HTTP routes: a picture or a documented refusal, never a 5xx."""

from itertools import cycle
from pathlib import Path

import pytest
from fakes import FakeDepthClient
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

ODD = Path(__file__).parents[3] / "shared" / "data" / "odd"
DOCUMENTED = {400, 413, 415, 422}
LEAKS = ("Traceback", ".py", "site-packages", "/home", "/root", "0x")

pytestmark = pytest.mark.shared


def test_every_odd_file_is_answered() -> None:
    if not ODD.is_dir():
        pytest.skip("the collection of odd files is not beside this checkout")
    files = sorted(path for path in ODD.rglob("*") if path.is_file())
    wrong = []
    settings = Settings(cache_bytes=0, request_timeout_s=120.0)  # 20 megapixels refocused on a machine that is busy
    with TestClient(create_app(settings, FakeDepthClient()), raise_server_exceptions=False) as client:
        # one decoder is before all routes: each file is sent to one of them, in turn
        for path, route in zip(files, cycle(("/depth", "/segmentation", "/focus?rx=0.5&ry=0.5")), strict=False):
            answer = client.post(route, content=path.read_bytes())
            text = answer.text if answer.status_code != 200 else ""
            if answer.status_code not in DOCUMENTED | {200} or any(leak in text for leak in LEAKS):
                wrong.append(f"{path.relative_to(ODD)} {route}: {answer.status_code} {text[:200]}")
    assert files
    assert not wrong
