"""Completion, in the shells themselves; and the command line stays quick to import."""

import json
import shutil
import subprocess
import sys

import pytest

from service.commands import _MODULES
from service.commands import parser as whole_parser
from service.commands.completion import _SCRIPTS, _commands, run

BASH = """
eval "$(cat {script})"
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_depthlens
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("completion")
    for shell, write in _SCRIPTS.items():
        (folder / shell).write_text(write(_commands(whole_parser())))
    return {shell: str(folder / shell) for shell in _SCRIPTS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("depthlens ''", list(_MODULES)),
        ("depthlens de", ["depth"]),
        ("depthlens depth --fo", ["--focal-px", "--format"]),
        ("depthlens depth --size ''", ["image", "native"]),
        ("depthlens depth --size = n", ["native"]),
        ("depthlens depth a.jpg --jo", ["--jobs"]),
        ("depthlens depth ph", []),  # left to the shell: files
        ("depthlens depth --server ''", []),
        ("depthlens models ''", ["list", "load", "rollback", "unload"]),
        ("depthlens models list ''", []),
        ("depthlens servers ''", ["list", "drain", "resume"]),
        ("depthlens completion f", ["fish"]),
        ("depthlens focus --mode s", ["subject"]),
    ],
)
def test_bash(scripts: dict[str, str], words: str, expected: list[str]) -> None:
    code = BASH.format(script=scripts["bash"], words=words)
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert [word for word in done.stdout.splitlines() if word] == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(scripts: dict[str, str], shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", scripts[shell]], check=True, timeout=30)


def test_fish(scripts: dict[str, str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    code = f"source {scripts['fish']}; complete -C 'depthlens depth --siz'; complete -C 'depthlens depth --size n'"
    done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["--size", "native"]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"shell": "bash"}) == 0
    assert "complete -o default -o bashdefault -F _depthlens depthlens" in capsys.readouterr().out


@pytest.mark.parametrize("command", list(_MODULES))
def test_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        whole_parser([command]).parse_args([command, "--help"])
    said = capsys.readouterr().out
    assert "examples:" in said
    assert f"depthlens {command}" in said.split("examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], ["pydantic", "numpy", "fastapi", "httpx2", "tqdm"]),
        (["serve", "--help"], ["fastapi", "grpc", "numpy"]),
        (["focus", "--help"], ["fastapi", "httpx2", "numpy", "cv2"]),
    ],
)
def test_help_does_not_load_the_service(arguments: list[str], heavy: list[str]) -> None:
    code = f"""
import json, sys
from service.__main__ import main
try:
    main({arguments!r})
except SystemExit:
    print("loaded:" + json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout.split("loaded:")[1]))
    assert not loaded & set(heavy)
