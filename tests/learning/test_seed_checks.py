import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "seed_checks.md"


def test_every_test_that_the_page_names_is_there():
    named = 0
    for row in PAGE.read_text().splitlines():
        path = ""
        for given, name in re.findall(r"`([\w/.]*)::(\w+)`", row):
            path = given or path
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"
            named += 1
    assert named > 40
