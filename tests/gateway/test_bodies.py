"""Bodies on real sockets: chunks, forms and compression, well made and not."""

from tempfile import SpooledTemporaryFile

import pytest
from raw import PHOTO, form, part, post
from running import RunningGateway, all_is_over


def test_small_chunks(edge: RunningGateway) -> None:
    """Each costs the parser as much as a large one."""
    chunked = post(b"Transfer-Encoding: chunked")
    answer = edge.say(chunked + b"1\r\nx\r\n" * 30_000)
    assert answer.status == 400
    assert answer.problem["field"] == "body"
    pieces = [PHOTO[start : start + 50] for start in range(0, len(PHOTO), 50)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert edge.say(chunked + body + b"0\r\n\r\n").status == 200, "a few may be small"
    assert edge.say(chunked + b"zz\r\n").problem["field"] == "body"
    assert edge.say(chunked + b"1;" + b"x" * 100_000).problem["field"] == "body"
    assert edge.say(chunked + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 70).status == 413, "there is no end"


NESTED = form(part(b"image")).replace(b"--b", b"--c")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (form(part(b"image")), b"multipart/form-data; boundary=b", 200),
        (form(part(b"image")), b"multipart/form-data", 400),
        (form(part(b"image")), b'multipart/form-data; boundary=""', 400),
        (form(part(b"image")), b"multipart/form-data; boundary=" + b"b" * 5000, 400),
        (form(part(b"image")), b"multipart/form-data; boundary=\xff\xfe", 400),
        (form(part(b"image"))[:-10], b"multipart/form-data; boundary=b", 400),
        (form(*[part(b"%d" % number, b"x") for number in range(1001)]), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image"), part(b"image")), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image", NESTED, b"multipart/mixed; boundary=c")), b"multipart/form-data; boundary=b", 415),
        (form(b"A: " + b"x" * 1_500_000), b"multipart/form-data; boundary=b", 400),
        (form(b"A: b\r\n" * 100_000), b"multipart/form-data; boundary=b", 400),
        (form(b"no header"), b"multipart/form-data; boundary=b", 400),
        (form(b"Content-Disposition: form-data\r\n\r\nx"), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image", b"\r\n--" * 300_000)), b"multipart/form-data; boundary=b", 415),
        (form(part(b"image", bytes(2_000_000))), b"multipart/form-data; boundary=b", 413),
        (form(part(b"image")) + b"more" * 1000, b"multipart/form-data; boundary=b", 200),
    ],
)
def test_multipart(edge: RunningGateway, body: bytes, kind: bytes, status: int) -> None:
    answer = edge.say(post(length=len(body), kind=kind), body)
    assert answer.status == status
    if status != 200:
        assert answer.problem["detail"]
    all_is_over(edge)


@pytest.mark.parametrize(
    "encoding", [[b"gzip"], [b"deflate"], [b"br"], [b"zstd"], [b"GZIP"], [b"identity, gzip"], [b"identity", b"gzip"]]
)
def test_compressed_bodies_are_refused_unread(edge: RunningGateway, encoding: list[bytes]) -> None:
    headers = [b"Content-Encoding: " + name for name in encoding]
    answer = edge.say(post(*headers, length=1_000_000))
    assert (answer.status, answer.problem["code"]) == (415, "unsupported_encoding")
    assert "without Content-Encoding" in answer.problem["detail"]


def test_nothing_is_written_to_disk(edge: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("a part went to disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", refuse)
    body = form(part(b"image", PHOTO + bytes(1_900_000)))
    assert edge.say(post(length=len(body), kind=b"multipart/form-data; boundary=b"), body).status == 200
