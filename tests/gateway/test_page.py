"""The web page's files: what is served, how it may be cached, what it may load, and that it leans on nothing else."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fakes import FakeDepthClient
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

WEB = Path(__file__).parents[2] / "service" / "web"
NAMES = sorted(path.name for path in WEB.iterdir() if path.is_file())


def test_the_page_and_every_file_of_it(gateway: TestClient) -> None:
    page = gateway.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.content == (WEB / "index.html").read_bytes()
    named = set(re.findall(r"web/([a-z-]+\.[a-z]+)", page.text))
    for script in WEB.glob("*.js"):
        named |= set(re.findall(r'from "\./([a-z-]+\.js)"', script.read_text()))
    named |= set(re.findall(r'url\("([a-z-]+\.[a-z]+)"\)', (WEB / "page.css").read_text()))
    assert named == set(NAMES) - {"index.html"}
    for name in named:
        answer = gateway.get(f"/web/{name}")
        assert (answer.status_code, answer.content) == (200, (WEB / name).read_bytes()), name
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert gateway.get("/web/app.js").headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/example.webp"])
def test_a_browser_that_has_it_is_told_so(gateway: TestClient, path: str) -> None:
    first = gateway.get(path)
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for said in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = gateway.get(path, headers={"If-None-Match": said})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), said
    assert gateway.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = gateway.head(path)
    assert (head.status_code, head.headers["etag"]) == (200, etag)
    assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize("name", ["", "index.html", "missing.js", "..%2Fapp.py", "%2e%2e/app.py", "app.js/"])
def test_nothing_else_is_served(gateway: TestClient, name: str) -> None:
    answer = gateway.get(f"/web/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")


def test_the_page_needs_no_other_host_and_no_inline_code(gateway: TestClient) -> None:
    policy = gateway.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    html = (WEB / "index.html").read_text()
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]*src=)", html)
    for name in NAMES:
        if not name.endswith(".webp"):
            addresses = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", (WEB / name).read_text())
            assert set(addresses) <= {"http://www.w3.org"}, name  # the name of SVG's language, which nobody fetches


def test_the_page_is_open_where_photos_need_a_key() -> None:
    app = create_app(Settings(api_key_hashes=("0" * 64,)), FakeDepthClient())
    with TestClient(app) as client:
        assert client.get("/").status_code == client.get("/web/app.js").status_code == 200
        assert client.post("/focus").status_code == 401


def test_the_wheel_has_the_page_and_the_network_that_tells_people_apart(tmp_path: Path) -> None:
    root = WEB.parents[1]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"service/web/{name}" for name in NAMES} <= held
    assert "service/imaging/person_votes.onnx" in held
