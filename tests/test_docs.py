"""The pages under docs/ do what they say: their commands run as written, their links lead somewhere.

A block of shell or Python that cannot run here says why: in a line before it, `<!-- not run: why -->`, or as its own
first line, `# not run by the documentation's test: why`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import encoded, picture
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<before>.*?) -->\n)?^```(?P<language>sh|python)\n(?P<body>.*?)^```$", re.M | re.S
)
WITHIN = re.compile(r"# not run by the documentation's test: (.*)\n")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FOREIGN = re.compile(r"^\s*(docker|docker-compose|kubectl|kind|helm|make|pip|apt-get|apt|systemctl|sudo)\b", re.M)
"""What no test may start: it works on the machine, not in its folder."""
MOST_PICTURE_BYTES = 100_000


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    reason: str | None
    """Why it is not run."""


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        within = WITHIN.match(match["body"])
        found.append(Block(match["language"], match["body"], match["before"] or (within[1] if within else None)))
    return found


RUN = [page for page in PAGES if any(block.reason is None for block in blocks(page.read_text()))]


def test_the_markers_are_read() -> None:
    text = """```sh
a
```
<!-- not run: no cluster -->
```sh
b
```
```python
# not run by the documentation's test: no GPU
c
```
```json
{}
```
"""
    assert [(block.language, block.body[:1], block.reason) for block in blocks(text)] == [
        ("sh", "a", None),
        ("sh", "b", "no cluster"),
        ("python", "#", "no GPU"),
    ]
    assert {"quickstart.md", "depth.md", "focus.md", "cli.md", "client.md", "streams.md"} <= {page.name for page in RUN}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_so(page: Path) -> None:
    unmarked = [block.body for block in blocks(page.read_text()) if block.reason is None and FOREIGN.search(block.body)]
    assert not unmarked, "put <!-- not run: why --> before the block"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_in_the_index() -> None:
    listed = set(LINK.findall((DOCS / "README.md").read_text()))
    assert {page.name for page in PAGES} - {"README.md"} <= listed


def test_pictures_are_small() -> None:
    large = {
        path.name: path.stat().st_size
        for path in (DOCS / "images").iterdir()
        if path.stat().st_size >= MOST_PICTURE_BYTES
    }
    assert not large


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real service: Triton, the committed network, the gateway."""
    if find_spec("pytriton") is None:
        pytest.skip("the extra `embedded` is not installed, so there is no tritonserver")
    log = tmp_path_factory.mktemp("docs") / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            said = next((line for line in process.stdout if "is ready" in line), "")
            assert said, log.read_text()
            yield said.split("http://")[1].strip()
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages take for granted: a photo, a folder of photos, one of frames, a video."""
    from films import film

    photo = (DOCS / "images" / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(photo)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(photo)
    (tmp_path / "photos/two.jpg").write_bytes(encoded(picture(320, 240), "JPEG"))
    (tmp_path / "frames").mkdir()
    for index in range(4):
        (tmp_path / f"frames/{index}.jpg").write_bytes(encoded(picture(160 + index, 120), "JPEG"))
    film(tmp_path / "in.mp4", frames=5)
    return tmp_path


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_run_as_written(page: Path, service: str, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DEPTHLENS_GATEWAY_URL": f"http://{service}",
    }
    for block in blocks(page.read_text()):
        if block.reason is not None or FOREIGN.search(block.body):  # the latter fails in a test of its own
            continue
        body = re.sub(r"(localhost|127\.0\.0\.1):8080", service, block.body).replace(
            "curl ", "curl --fail-with-body -sS "
        )
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, body], cwd=folder, env=environment, capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{block.body}\n{done.stdout.decode()[-2000:]}\n{done.stderr.decode()[-4000:]}"
    for path in folder.rglob("*.*"):
        if path.suffix in (".jpg", ".png", ".webp") and path.is_file():
            with Image.open(path) as image:
                image.load()
