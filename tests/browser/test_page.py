"""What a visitor does with the page, in a real browser at the real service."""

import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from browser_photo import FRONT, MAN, WALL, WOMAN, sharpness
from crowds import PHOTO as CROWD
from crowds import WIDTH as CROWD_WIDTH
from PIL import Image
from playwright.sync_api import expect

from service.clients import hash_of

Open = Callable[..., "Visit"]  # noqa: F821  # of conftest, which pytest does not let be imported


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, **options)
    return stream.getvalue()


def kept(visit: object, part: str) -> float:
    """How much of a part's detail is left in the picture on show."""
    return sharpness(visit.pixels("after"), FRONT[part]) / sharpness(visit.pixels("before"), FRONT[part])


def test_example_hover_click_and_keys_of_people(visit: Open, real_url: str) -> None:
    tab = visit(real_url)
    tab.page.click("#example")
    tab.ready()
    tab.expect_status("Person 1 is in focus at f/2.8")
    expect(tab.page.locator(".chip")).to_have_text(["Person 1", "Person 2", "Everyone"])
    tab.hover(*MAN)
    expect(tab.page.locator("#tag")).to_have_text("Person 2")
    expect(tab.page.locator("#hover")).to_have_class("on")
    outlined = tab.pixels("hover")[..., 3]
    height, width = outlined.shape
    assert outlined[int(MAN[1] * height), int(MAN[0] * width)] > 0
    assert outlined[int(WOMAN[1] * height), int(WOMAN[0] * width)] == 0
    assert kept(tab, "woman") > 0.6 > 0.4 > kept(tab, "man")
    asked = len(tab.asked())
    tab.click(*MAN)
    tab.expect_status("Person 2 is in focus")
    assert kept(tab, "man") > 0.6 > 0.4 > kept(tab, "woman")
    expect(tab.page.locator(".chip[aria-pressed=true]")).to_have_text(["Person 2"])
    assert [("scene" in query(url)) for url in tab.asked()[asked:]] == [True]  # the photo went once
    tab.hover(*WALL)
    expect(tab.page.locator("#tag")).to_be_hidden()
    tab.click(*WALL)
    tab.expect_status("The distance here is in focus")
    tab.page.click("text=Everyone")
    tab.expect_status("People 1 and 2 are in focus")
    assert kept(tab, "man") > 0.6
    assert kept(tab, "woman") > 0.6


def test_sliders_ask_once_they_rest_and_the_latest_wins(visit: Open, real_url: str, photo: Image.Image) -> None:
    tab = visit(real_url).open(jpeg(photo))
    before = len(tab.asked())
    aperture = tab.page.locator("#aperture")
    aperture.focus()
    for _ in range(8):
        tab.page.keyboard.press("ArrowRight")
    tab.expect_status("at f/1.1")
    expect(aperture).to_have_attribute("aria-valuetext", "f/1.1")
    moved = [query(url) for url in tab.asked()[before:] if "output" not in query(url)]
    assert len(moved) < 8
    assert moved[-1]["f_number"] == "1.1"
    assert all("scene" in one for one in moved)
    wide = kept(tab, "man")
    aperture.fill("6")  # one render is on its way when the next is asked for
    tab.page.wait_for_timeout(120)
    aperture.fill("0")
    tab.expect_status("at f/22")
    assert kept(tab, "man") > 2 * wide
    tab.page.click("summary")
    tab.page.select_option("#blades", "6")
    tab.page.select_option("#highlights", "off")
    tab.page.locator("#back").fill("30")
    tab.settled()
    last = query(tab.asked()[-1])
    assert (last["blades"], last["highlights"], last["back"], last["f_number"]) == ("6", "off", "0.3", "22")


@pytest.mark.parametrize("orientation", [6, 5])
def test_a_turned_photo_is_clicked_where_it_is_seen(
    visit: Open, real_url: str, photo: Image.Image, orientation: int
) -> None:
    """Stored turned (and mirrored, with 5), shown upright: the man at the right is where the visitor sees him."""
    undo = {6: Image.Transpose.ROTATE_90, 5: Image.Transpose.TRANSPOSE}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo.transpose(undo)
    assert stored.size == (480, 640)
    tab = visit(real_url).open(jpeg(stored, exif=exif))
    assert tab.pixels("before").shape[:2] == (480, 640)
    box = tab.page.locator("#frame").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(4 / 3, abs=0.01)
    with tab.page.expect_response(lambda answer: "x=" in answer.url) as answered:
        x, y = tab.click(*MAN)
    tab.expect_status("Person 2 is in focus")
    sent = query(answered.value.url)
    assert (int(sent["x"]), int(sent["y"])) == (int(x * 640), int(y * 480))
    assert answered.value.headers["x-focus-person"] == "1"
    assert kept(tab, "man") > 0.6 > 0.4 > kept(tab, "woman")


def test_layers_and_the_wipe(visit: Open, real_url: str, photo: Image.Image) -> None:
    tab = visit(real_url).open(jpeg(photo))
    at = {name: (int(y * 480), int(x * 640)) for name, (x, y) in {"woman": WOMAN, "man": MAN, "wall": WALL}.items()}
    tab.page.check("#show-depth")
    expect(tab.page.locator("#layer-depth")).to_be_visible()
    depth = tab.pixels("layer-depth")[..., :3].sum(axis=2).astype(int)
    assert depth[at["woman"]] > depth[at["man"]] > depth[at["wall"]]
    tab.page.locator("#opacity-depth").fill("35")
    expect(tab.page.locator("#layer-depth")).to_have_css("opacity", "0.35")
    tab.page.check("#show-people")
    expect(tab.page.locator("#layer-people")).to_be_visible()
    people = tab.pixels("layer-people")[..., 3]
    assert people[at["man"]] > 200 > 20 > people[at["wall"]]
    tab.page.check("#show-blur")
    expect(tab.page.locator("#layer-blur")).to_be_visible()
    blur = cv2.resize(tab.pixels("layer-blur"), (640, 480))
    assert blur[at["woman"]][3] < 30 < 100 < blur[at["wall"]][3]
    tab.click(*MAN)
    tab.expect_status("Person 2 is in focus")
    tab.settled()
    expect(tab.page.locator("#layer-blur")).to_be_visible()
    tab.page.wait_for_timeout(300)
    blur = cv2.resize(tab.pixels("layer-blur"), (640, 480))
    assert blur[at["man"]][3] < 30 < 60 < blur[at["woman"]][3]  # it has followed the focus
    for name in ("depth", "people", "blur"):
        tab.page.uncheck(f"#show-{name}")
        expect(tab.page.locator(f"#layer-{name}")).to_be_hidden()

    tab.page.check("#compare")
    wipe = tab.page.get_by_role("slider", name="Before and after")
    wipe.focus()
    tab.page.keyboard.press("ArrowRight")  # the ring of the focus is on both pictures
    tab.page.keyboard.press("ArrowLeft")
    whole = shot(tab)
    for _ in range(20):
        tab.page.keyboard.press("ArrowRight")
    expect(wipe).to_have_attribute("aria-valuetext", "70 % before, 30 % after")
    expect(tab.page.locator("#after")).to_have_css("clip-path", "inset(0px 0px 0px 70%)")
    moved = shot(tab)
    changed = np.abs(moved.astype(int) - whole).mean(axis=(0, 2))
    columns = len(changed)
    assert changed[int(0.55 * columns) : int(0.62 * columns)].mean() > 2  # was after, is before
    assert changed[int(0.75 * columns) : int(0.95 * columns)].mean() < 0.5
    assert changed[int(0.05 * columns) : int(0.45 * columns)].mean() < 0.5


def shot(tab: object) -> np.ndarray:
    png = tab.page.locator("#frame").screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_focus_pull(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(max_rack_pixels=400_000)).open(CROWD, "crowd.png", "image/png")
    tab.page.click("#pull-start")
    expect(tab.page.locator("#pull-start")).to_have_attribute("aria-pressed", "true")
    tab.click(134 / 192, 40 / 128)
    tab.expect_status("in 24 frames")
    expect(tab.page.locator("#pull")).to_be_visible()
    assert query(tab.asked()[-1])["rack_person"] == "1"
    with tab.page.expect_download() as saved:
        tab.page.click("#pull-save")
    assert saved.value.suggested_filename == "crowd.pull.webp"
    assert Image.open(io.BytesIO(Path(saved.value.path()).read_bytes())).n_frames == 24
    tab.page.click("#pull-close")
    expect(tab.page.locator("#pull")).to_be_hidden()


def test_who_wants_no_motion_starts_it_himself(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(), reduced_motion="reduce").open(CROWD, "crowd.png", "image/png")
    tab.page.click("#pull-start")
    tab.page.click("text=Person 2")
    tab.expect_status("press Play")
    expect(tab.page.locator("#pull")).to_be_hidden()
    tab.page.click("#pull-play")
    expect(tab.page.locator("#pull")).to_be_visible()


def test_by_keyboard_alone(visit: Open, real_url: str, photo: Image.Image) -> None:
    tab = visit(real_url)
    keyboard = tab.page.keyboard
    focused = "() => document.activeElement.id || document.activeElement.className"
    for _ in range(12):
        if tab.page.evaluate(focused) == "example":
            break
        keyboard.press("Tab")
    assert tab.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"  # it is seen
    keyboard.press("Enter")
    tab.ready()
    for _ in range(12):
        if tab.page.evaluate(focused) == "frame":
            break
        keyboard.press("Tab")
    assert tab.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keyboard.press("ArrowRight")  # from the middle: 1200 x 900, steps of 24
    tab.expect_status("Column 624, row 450: nobody here.")
    keyboard.press("Alt+ArrowUp")
    tab.expect_status("Column 624, row 449")
    for _ in range(7):
        keyboard.press("ArrowRight")
    keyboard.press("ArrowDown")
    tab.expect_status("Column 792, row 473: person 2.")
    keyboard.press("Enter")
    tab.expect_status("Person 2 is in focus")
    assert (query(tab.asked()[-1])["x"], query(tab.asked()[-1])["y"]) == ("792", "473")
    keyboard.press("Tab")
    assert tab.page.evaluate(focused) == "aperture"
    keyboard.press("End")
    tab.expect_status("at f/1")
    assert tab.page.locator("#status").get_attribute("aria-live") == "polite"


def test_broken_and_too_large_files_are_told_in_words(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(max_body_bytes=60_000))
    tab.expected = ("status of 400", "status of 413", "status of 415")
    message = tab.page.locator("#message")
    for data, title, words in (
        (CROWD[: len(CROWD) // 2][:50_000], "Damaged image", ""),
        (b"%PDF-1.7 and so on", "Not an image we read", "PDF is not read here"),
        (bytes(90_000), "Too large", "more than 60000 bytes"),
    ):
        tab.give(data)
        expect(message).to_be_visible()
        expect(message).to_contain_text(title)
        expect(message).to_contain_text(words)
        assert message.get_attribute("role") == "alert"
        expect(tab.page.locator("#welcome")).to_be_visible()  # and one can go on
        tab.page.click("#message-close")
        expect(message).to_be_hidden()


def test_a_key_is_asked_for_and_kept_in_the_tab(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(api_key_hashes=(hash_of("dl_right"),)))
    tab.expected = ("status of 401",)
    tab.give(CROWD, "crowd.png", "image/png")
    dialog = tab.page.locator("#key-dialog")
    expect(dialog).to_contain_text("This server wants a key")
    tab.page.fill("#key", "dl_wrong")
    tab.page.keyboard.press("Enter")
    expect(dialog).to_contain_text("That key does not open this server")
    tab.page.fill("#key", "dl_right")
    tab.page.keyboard.press("Enter")
    tab.ready()
    assert tab.page.evaluate("() => [sessionStorage.getItem('depthlens.key'), localStorage.length]") == ["dl_right", 0]
    line = tab.page.inner_text("#curl")
    assert "X-API-Key: YOUR_KEY" in line
    assert "dl_right" not in line


def test_too_many_requests_wait_with_a_countdown(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(rate_limit_per_s=0.5)).open(CROWD, "crowd.png", "image/png")
    tab.expected = ("status of 429",)
    message = tab.page.locator("#message")
    for _ in range(8):
        tab.click(134 / 192, 40 / 128)
        tab.page.wait_for_timeout(60)
        if message.is_visible():
            break
    expect(message).to_contain_text(re.compile(r"Trying again in \d+ s\."))
    expect(message).to_be_hidden()  # once the time was up
    tab.expect_status("Person 2 is in focus")


@pytest.mark.parametrize("settings", [{"scene_age_s": 0.2}, {"cache_bytes": 0}], ids=["expired", "never kept"])
def test_a_scene_that_is_gone_is_sent_again(
    visit: Open, gateway: Callable[..., str], settings: dict[str, object]
) -> None:
    tab = visit(gateway(**settings)).open(CROWD, "crowd.png", "image/png")
    tab.expected = ("status of 404",)
    tab.page.wait_for_timeout(400)
    tab.click(134 / 192, 40 / 128)
    tab.expect_status("Person 2 is in focus")
    expect(tab.page.locator("#message")).to_be_hidden()


def test_downloads_are_the_documents_and_curl_gives_the_same(
    visit: Open, real_url: str, photo: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "it's.jpg").write_bytes(jpeg(photo))
    tab = visit(real_url).open(jpeg(photo), "it's.jpg")
    document = tab.page.request.get(f"{real_url}/openapi.json").json()
    outputs = document["paths"]["/focus"]["post"]["x-formats"]
    titles = tab.page.locator("#download-what option").all_inner_texts()
    assert titles[:3] == ["Refocused photo", "Depth map", "Mask of people"]
    assert len(titles) >= len(outputs) + 2
    for what, path in (("Depth map", "/depth"), ("Mask of people", "/segmentation")):
        parameters = {one["name"]: one for one in document["paths"][path]["post"]["parameters"]}
        assert formats_of(tab, what) == parameters["format"]["schema"]["enum"]
    small = jpeg(photo.resize((160, 120)))
    for what in titles:
        for format in formats_of(tab, what):
            tab.page.select_option("#download-format", format)
            address = tab.page.inner_text("#curl").split("'")[-2]
            answer = tab.page.request.post(address, data=small, headers={"Content-Type": "image/jpeg"})
            assert answer.ok, f"{what} as {format}: {answer.text()[:300]}"
    tab.page.click(".chip >> text=Person 2")
    tab.expect_status("Person 2 is in focus")
    for what, format, name in (
        ("Refocused photo", "same", "it's.focus.jpg"),
        ("Depth map", "npy", "it's.depth.npy"),
        ("Depth map", "tiff", "it's.depth.tif"),
        ("Everything, zipped", "zip", "it's.all.zip"),
    ):
        tab.page.select_option("#download-what", label=what)
        tab.page.select_option("#download-format", format)
        with tab.page.expect_download() as saved:
            tab.page.click("#download")
        assert saved.value.suggested_filename == name
        if shutil.which("curl"):
            line = tab.page.inner_text("#curl")
            subprocess.run(["bash", "-ec", line.replace("curl ", "curl -sSf ", 1)], cwd=tmp_path, check=True)
            (made,) = [path for path in tmp_path.iterdir() if path.name != "it's.jpg"]
            assert parts(made.read_bytes()) == parts(Path(saved.value.path()).read_bytes()), what
            made.unlink()


def formats_of(tab: object, what: str) -> list[str]:
    tab.page.select_option("#download-what", label=what)
    return tab.page.locator("#download-format option").evaluate_all("all => all.map((one) => one.value)")


def parts(data: bytes) -> dict[str, bytes]:
    """The files in a zip, but for the one that names the scene; any other file as it is."""
    if not data.startswith(b"PK"):
        return {"": data}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 5
        return {name: archive.read(name) for name in archive.namelist() if name != "people.json"}


def test_a_photo_that_the_browser_cannot_show(visit: Open, gateway: Callable[..., str]) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(CROWD)).save(stream, "TIFF")
    tab = visit(gateway()).open(stream.getvalue(), "crowd.tiff", "image/tiff")
    before = tab.pixels("before")
    assert before.shape[1] == CROWD_WIDTH
    sent = np.asarray(Image.open(io.BytesIO(CROWD)).convert("RGB")).astype(int)
    assert np.abs(before[..., :3] - sent).mean() < 12  # JPEG of noise


def test_paste_drop_and_camera(visit: Open, gateway: Callable[..., str]) -> None:
    hand_over = """([name, bytes]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array(bytes)], `${name}.png`, {type: "image/png"}));
        const fields = {bubbles: true, cancelable: true, clipboardData: carried, dataTransfer: carried};
        const make = {paste: ClipboardEvent, drop: DragEvent, dragenter: DragEvent}[name];
        document.body.dispatchEvent(new make(name, fields));
    }"""
    tab = visit(gateway(), permissions=["camera"])
    tab.page.evaluate(hand_over, ["paste", list(CROWD)])
    tab.ready()
    expect(tab.page.locator("#curl")).to_contain_text("image=@paste.png")
    tab.page.evaluate(hand_over, ["dragenter", list(CROWD)])
    expect(tab.page.locator("#drop")).to_be_visible()
    tab.page.evaluate(hand_over, ["drop", list(CROWD)])
    expect(tab.page.locator("#drop")).to_be_hidden()
    expect(tab.page.locator("#curl")).to_contain_text("image=@drop.png")

    tab.load()
    tab.page.click("#camera")
    tab.page.click("#camera-shoot")
    tab.ready()
    expect(tab.page.locator("#curl")).to_contain_text("image=@camera.jpg")


def test_a_page_without_camera_says_why(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway())
    tab.page.evaluate("() => Object.defineProperty(window, 'isSecureContext', {value: false})")
    tab.page.click("#camera")
    expect(tab.page.locator("#camera-note")).to_contain_text("secure pages only")
    expect(tab.page.locator("#camera-shoot")).to_be_disabled()
    tab.page.click("#camera-cancel")
    expect(tab.page.locator("#camera-dialog")).to_be_hidden()


def test_the_theme_is_kept(visit: Open, gateway: Callable[..., str]) -> None:
    tab = visit(gateway(), color_scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = tab.page.evaluate(ground)
    tab.page.get_by_role("button", name="Switch to the light theme").click()
    light = tab.page.evaluate(ground)
    assert (dark, light) == ("rgb(14, 15, 17)", "rgb(243, 243, 240)")
    tab.page.reload()
    assert tab.page.evaluate(ground) == light
