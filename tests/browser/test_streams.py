"""`WS /frames` from a real page: the documentation's example as written, and a key as a subprotocol."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.clients import hash_of, new_key

WAIT_MS = 60_000
DOCS = Path(__file__).parents[2] / "docs" / "streams.md"


def test_the_documentations_example_shows_the_camera_refocused_and_takes_a_click(
    browser: Any, gateway: Callable[..., str]
) -> None:
    example, *_others = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
    page = browser.new_page()
    try:
        page.goto(gateway() + "/health/live")
        page.evaluate(
            """async () => {
                document.body.innerHTML = '<video id="camera" autoplay muted></video><img id="out">';
                camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
                await camera.play();
            }"""
        )
        page.add_script_tag(content=example)
        page.wait_for_function("words && words.type === 'result' && out.naturalWidth === 640", timeout=WAIT_MS)
        page.evaluate(
            """() => {
                window.types = [];
                stream.addEventListener("message", ({ data }) => {
                    if (typeof data === "string") types.push(JSON.parse(data).type);
                });
            }"""
        )
        page.click("#out", position={"x": 5, "y": 5})
        answered = "types.includes('settings') && types.lastIndexOf('result') > types.indexOf('settings')"
        page.wait_for_function(answered, timeout=WAIT_MS)
        assert set(page.evaluate("types")) == {"settings", "result"}
    finally:
        page.close()


def test_a_page_shows_its_key_as_a_subprotocol(browser: Any, gateway: Callable[..., str]) -> None:
    key = new_key()
    url = gateway(api_key_hashes=[hash_of(key)])
    page = browser.new_page()
    opened = """(protocols) => new Promise((done) => {
        const stream = new WebSocket(`ws://${location.host}/frames?task=depth`, protocols);
        stream.onmessage = ({ data }) => { done([stream.protocol, JSON.parse(data).type]); stream.close(); };
        stream.onerror = () => done(null);
    })"""
    try:
        page.goto(url + "/health/live")
        assert page.evaluate(opened, ["depthlens", f"depthlens.key.{key}"]) == ["depthlens", "ready"]
        assert page.evaluate(opened, ["depthlens", "depthlens.key.dl_wrong"]) is None
    finally:
        page.close()
