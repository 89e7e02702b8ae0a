"""The file through which a server and its gateway share the secret of model control."""

import logging
from pathlib import Path

import pytest

from service.triton_admin import make_or_read, metadata, read


def test_what_one_makes_another_finds(tmp_path: Path) -> None:
    file = tmp_path / "admin"
    secret = make_or_read(file)
    assert read(file) == ("triton-grpc-protocol-depthlens", secret)
    assert make_or_read(file) == secret  # a server that starts again, or a second one beside it
    assert [path.name for path in tmp_path.iterdir()] == ["admin"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_given_secret_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text("depthlens=given\n")
    assert make_or_read(file) == "given"


@pytest.mark.parametrize("content", [None, "", "no-equals", "depthlens=", "depthlens=a b", "another=secret"])
def test_what_cannot_be_used_leaves_a_secret_of_its_own(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "admin"
    if content is None:
        file = tmp_path / "missing" / "admin"  # nor can it be made
    else:
        file.write_text(content)
    with caplog.at_level(logging.WARNING):
        first, second = make_or_read(file), make_or_read(file)
    assert len(first) >= 32
    assert first != second
    assert str(file) in caplog.text
    assert content is None or file.read_text() == content


def test_the_gateway_goes_on_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / "missing") is None
    assert "missing" in caplog.text
    assert metadata("admin=s3cret=x") == ("triton-grpc-protocol-admin", "s3cret=x")
    with pytest.raises(ValueError, match="name=secret"):
        metadata("s3cret")
