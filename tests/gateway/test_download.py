import dataclasses
import hashlib
import re
import resource
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.__main__ import main
from service.download import Download, DownloadError, file_sha256
from service.weights import CATALOGUE, listing

CONTENT = bytes(range(256)) * 12_000  # 3 MB: three chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Host(BaseHTTPRequestHandler):
    """Serves `content`; the plan says what each request gets instead, one entry a request, then none."""

    def do_GET(self):
        host = self.server
        host.seen.append(dict(self.headers))
        step = host.plan.pop(0) if host.plan else None
        if isinstance(step, int) and step >= 400:
            self.send_response(step)
            if step == 416:
                self.send_header("Content-Range", f"bytes */{len(host.content)}")
            self.end_headers()
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{host.server_port}/file")
            self.end_headers()
            return
        start = 0
        wanted = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (None, host.tag)
        if wanted and host.ranges and unchanged:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(host.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(host.content)}")
                self.end_headers()
                return
            self.send_response(206)
            if step == "another part":
                start += 1
            self.send_header("Content-Range", f"bytes {start}-{len(host.content) - 1}/{len(host.content)}")
        else:
            self.send_response(200)
        rest = host.content[start:]
        if step != "no length":
            self.send_header("Content-Length", str(len(rest)))
        if host.tag:
            self.send_header("ETag", host.tag)
        self.end_headers()
        if step == "silent":
            host.release.wait(5)
        elif step == "cut":
            self.wfile.write(rest[: len(rest) // 2])
        else:
            self.wfile.write(rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    server.content, server.tag, server.ranges, server.plan, server.seen = CONTENT, '"one"', True, [], []
    server.release = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(host, tmp_path):
    def run(path="/file", sha256=DIGEST, timeout_s=20, **more):
        told = []
        wanted = Download(f"http://127.0.0.1:{host.server_port}{path}", tmp_path / "weights" / "a.pt", sha256, **more)
        fetched = wanted.run(lambda have, total: told.append((have, total)), pause_s=0, timeout_s=timeout_s)
        return SimpleNamespace(fetched=fetched, told=told, path=wanted.target)

    return run


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "weights").iterdir())


def test_a_file_comes_whole_and_alone(host, get, tmp_path):
    result = get()
    assert result.path.read_bytes() == CONTENT
    assert names(tmp_path) == ["a.pt"]
    assert result.told[0] == (0, len(CONTENT))
    assert result.told[-1] == (len(CONTENT), len(CONTENT))
    assert "Range" not in host.seen[0]


def test_what_is_there_is_checked_and_not_fetched_again(host, get):
    assert get().fetched
    assert not get().fetched
    assert len(host.seen) == 1


def test_what_is_there_and_differs_is_left_alone(get, tmp_path):
    get().path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="is there already, but its SHA-256 is"):
        get()
    assert (tmp_path / "weights" / "a.pt").read_bytes() == b"mine"


def test_a_redirect_is_followed(get):
    assert get("/moved").path.read_bytes() == CONTENT


def test_a_cut_connection_is_taken_up_where_it_ended(host, get):
    host.plan = ["cut", "cut"]
    assert get().path.read_bytes() == CONTENT
    ranges = [seen.get("Range") for seen in host.seen]
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    assert ranges == [None, f"bytes={half}-", f"bytes={half + quarter}-"]
    assert [seen.get("If-Range") for seen in host.seen] == [None, '"one"', '"one"']


def test_a_later_call_goes_on_from_an_earlier_one(host, get, tmp_path):
    host.plan = ["cut", 404]
    with pytest.raises(DownloadError, match="answered 404 Not Found"):
        get()
    assert names(tmp_path) == ["a.pt.part", "a.pt.part.tag"]
    assert get().path.read_bytes() == CONTENT
    assert names(tmp_path) == ["a.pt"]
    assert host.seen[-1]["Range"] == f"bytes={len(CONTENT) // 2}-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(host, get):
    host.plan = ["cut", 404]
    with pytest.raises(DownloadError):
        get()
    host.tag, host.content = '"two"', CONTENT[::-1]
    assert get(sha256=hashlib.sha256(CONTENT[::-1]).hexdigest()).path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_the_digest_is_the_judge(host, get, tag):
    host.tag, host.plan = tag, ["cut"]
    assert get().path.read_bytes() == CONTENT
    assert "If-Range" not in host.seen[1]


def test_a_server_without_ranges_sends_all_again(host, get):
    host.ranges, host.plan = False, ["cut", "cut"]
    assert get().path.read_bytes() == CONTENT


def test_a_server_that_says_no_length(host, get):
    host.plan = ["no length"]
    assert get().told[-1] == (len(CONTENT), None)


def test_another_part_than_asked_for_is_not_appended(host, get):
    host.plan = ["cut", "another part"]
    assert get().path.read_bytes() == CONTENT
    assert "Range" not in host.seen[2]


def test_all_there_but_not_yet_named(host, get, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt.part").write_bytes(CONTENT)
    assert get().path.read_bytes() == CONTENT
    assert len(host.seen) == 1


def test_more_there_than_the_file_has_is_thrown_away(get, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt.part").write_bytes(CONTENT + b"more")
    assert get().path.read_bytes() == CONTENT


def test_wrong_bytes_are_set_aside_and_do_not_come_back(host, get, tmp_path):
    host.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"SHA-256 is .*, expected {DIGEST}; set aside as .*a.pt.rejected"):
        get()
    assert names(tmp_path) == ["a.pt.rejected"]
    host.content = CONTENT
    assert get().path.read_bytes() == CONTENT


def test_a_passing_failure_of_the_server_is_waited_out(host, get):
    host.plan = [503, 500, 429]
    assert get().path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 5)])
def test_a_lasting_failure_is_one_line(host, get, status, requests):
    host.plan = [status] * 9
    with pytest.raises(DownloadError, match=f"answered {status}") as caught:
        get()
    assert "\n" not in str(caught.value)
    assert len(host.seen) == requests


def test_a_silent_server_is_given_up(host, get, tmp_path):
    host.plan = ["cut", *["silent"] * 9]
    with pytest.raises(DownloadError, match=r"silent too long, 5 times in a row; .* bytes are kept in .*a.pt.part"):
        get(timeout_s=0.2)
    assert names(tmp_path) == ["a.pt.part", "a.pt.part.tag"]


def test_nobody_there(host, get):
    host.shutdown()
    host.server_close()
    with pytest.raises(DownloadError, match="Connection refused, 5 times in a row"):
        get()


def test_no_space_is_said_before_it_is_used_up(get, monkeypatch, tmp_path):
    monkeypatch.setattr("service.download.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match=f"{len(CONTENT)} more bytes to come, 1000 are free"):
        get()


def test_a_write_that_fails_is_one_line(host, get, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # as a full disk, with another number
    try:
        with pytest.raises(DownloadError, match=r"a\.pt\.part: File too large"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert get().path.read_bytes() == CONTENT
    assert host.seen[1]["Range"] == "bytes=2000000-"


def test_two_at_once(get, tmp_path):
    import fcntl

    (tmp_path / "weights").mkdir()
    with (tmp_path / "weights" / "a.pt.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="being written by another download"):
            get()


def test_an_unknown_digest_keeps_nothing_until_the_user_names_it(host, get, tmp_path):
    with pytest.raises(DownloadError, match=f"no SHA-256 is known .* has {DIGEST}: .* --sha256"):
        get(sha256=None)
    assert names(tmp_path)[0] == "a.pt.part"
    assert get(sha256=DIGEST).path.read_bytes() == CONTENT
    assert len(host.seen) == 2  # the second learnt only that nothing was left to come
    with pytest.raises(DownloadError, match=f"is there already; if you trust {DIGEST}, say so with --sha256"):
        get(sha256=None)


def test_an_unknown_digest_with_a_known_beginning(host, get, tmp_path):
    with pytest.raises(DownloadError, match="expected one that begins with b12dca68"):
        get(sha256=None, sha256_begins="b12dca68")
    assert names(tmp_path) == ["a.pt.rejected"]


# ------------------------------------------------------------------------------------------------------ command line


def test_the_catalogue_pins_what_it_can():
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert entry.license in {"Apache-2.0", "MIT", "CC-BY-NC-4.0"}
        assert entry.sha256 == "" or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert entry.sha256.startswith(entry.sha256_begins) or not entry.sha256
        assert entry.url.startswith("https://") or not entry.url
    unpinned = {name for name, entry in CATALOGUE.items() if not entry.sha256}
    assert unpinned == {"dpt_large_ade20k", "focus_on_depth"}
    # what the authors wrote into the names of DPT's files
    for entry in CATALOGUE.values():
        if entry.file.endswith(".pt"):
            assert (entry.sha256 or entry.sha256_begins).startswith(entry.file[-11:-3])


def test_list_names_every_entry_and_its_terms(capsys):
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    assert text.strip() == listing()
    for entry in CATALOGUE.values():
        line = next(line for line in text.splitlines() if line.split()[:1] == [entry.name])
        assert entry.license in line


def pull(host, tmp_path, name, *more):
    return main(
        ["weights", "pull", name, "--to", str(tmp_path), "--url", f"http://127.0.0.1:{host.server_port}/f", *more]
    )


def test_pull_refuses_other_bytes_than_the_catalogue_pins(host, tmp_path, capsys):
    assert pull(host, tmp_path, "depth_anything_v2_small") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("depthlens: ")
    assert "715fade13be8" in error
    assert [path.name for path in tmp_path.iterdir()] == ["depth_anything_v2_vits.pth.rejected"]


def test_pull_keeps_what_the_catalogue_pins_and_says_what_is_next(host, tmp_path, capsys, monkeypatch):
    entry = dataclasses.replace(CATALOGUE["depth_anything_v2_base"], sha256=DIGEST)
    monkeypatch.setattr("service.weights.CATALOGUE", {entry.name: entry})
    for said in ("fetched", "there already"):
        assert pull(host, tmp_path, entry.name) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert said in first
        assert first.endswith("license CC-BY-NC-4.0 (not for commercial use)")
        assert f"import --weights {tmp_path / entry.file} --as depth_anything_v2_base --out runs/" in second
    assert (tmp_path / entry.file).read_bytes() == CONTENT


def test_pull_shows_how_far_it_is(host, tmp_path, capsys):
    begins = CATALOGUE["dpt_large_ade20k"].sha256_begins
    assert pull(host, tmp_path, "dpt_large_ade20k", "--sha256", begins + "0" * 56) == 1
    captured = capsys.readouterr()
    assert "100% 3.1 MB of 3.1 MB" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "no weights 'resnet'; known: depth_anything_v2_small, "),
        (["focus_on_depth", "--sha256", "0" * 64], "no direct address: get FocusOnDepth_vit_base_patch16_384.p from"),
        (["dpt_large", "--sha256", "0" * 64], "contradicts the catalogue, which knows 2f21e586477d90cb"),
        (["dpt_large_ade20k", "--sha256", "0" * 64], "contradicts the catalogue, which knows b12dca68..."),
        (["dpt_large", "--sha256", "0x12"], "--sha256 0x12: not 64 hexadecimal digits"),
        (["dpt_large", "--url", "file:///etc/passwd"], "file:///etc/passwd: not an http or https address"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["weights", "pull", "--to", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_digest_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_page_states_the_catalogue():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", page, re.MULTILINE))
    assert set(rows) == set(CATALOGUE)
    for name, entry in CATALOGUE.items():
        assert entry.license in rows[name]
        assert f"`{entry.sha256}`" in rows[name] if entry.sha256 else "not known" in rows[name]
        assert ("not for commercial use" in rows[name]) == ("-NC-" in entry.license)
