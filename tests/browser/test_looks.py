"""How the page looks at three widths in both themes: nothing sticks out, axe-core finds nothing; pictures to see."""

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

PICTURES = Path(__file__).parent / "screenshots"
WIDTHS = {360: 740, 820: 1100, 1440: 900}
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}


def check(tab: object, name: str) -> None:
    tab.page.screenshot(path=PICTURES / f"{name}.png")
    wide, room = tab.page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room, f"{name}: {wide} pixels in {room}"
    results = Axe().run(tab.page, options=RULES)
    found = [
        (violation["id"], violation["help"], [node["html"][:120] for node in violation["nodes"]])
        for violation in results.response["violations"]
    ]
    assert not found, f"{name}: {found}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_at_three_widths(visit: Callable[..., object], real_url: str, theme: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    tab = visit(real_url, color_scheme=theme, viewport={"width": 1440, "height": 900})
    for width, height in WIDTHS.items():
        tab.page.set_viewport_size({"width": width, "height": height})
        check(tab, f"welcome-{width}-{theme}")
    tab.page.click("#example")
    tab.ready()
    tab.page.wait_for_timeout(1700)  # the mark of the focus has gone
    for width, height in WIDTHS.items():
        tab.page.set_viewport_size({"width": width, "height": height})
        tab.page.wait_for_timeout(200)
        check(tab, f"photo-{width}-{theme}")
    tab.page.check("#show-depth")
    tab.page.check("#compare")
    tab.page.click("summary")
    expect(tab.page.locator("#layer-depth")).to_be_visible()
    tab.page.wait_for_timeout(200)
    for width, height in WIDTHS.items():
        tab.page.set_viewport_size({"width": width, "height": height})
        tab.page.wait_for_timeout(200)
        check(tab, f"layers-{width}-{theme}")
