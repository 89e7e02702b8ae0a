"""The README says what the code does: its settings table, its dependencies, and its commands run as written."""

import re
import tomllib
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
START, END = "<!-- settings:", "<!-- end of settings -->"


def settings_table() -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default in (None, ()) else field.default
        lines.append(f"| `DEPTHLENS_{name.upper()}` | `{default}` | {field.description} |")
    return "\n".join(lines)


def test_settings_table(update_golden: bool) -> None:
    text = README.read_text()
    head, rest = text.split(START)
    comment, table = rest.split("\n", 1)[0], rest.split("\n", 1)[1].split(END)[0].strip()
    if update_golden:
        tail = text.split(END)[1]
        README.write_text(f"{head}{START}{comment}\n{settings_table()}\n{END}{tail}")
        table = settings_table()
    assert table == settings_table(), "run pytest --update-golden tests/test_readme.py"


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += [[entry for entry in group if isinstance(entry, str)] for group in project["dependency-groups"].values()]
    names = {re.split(r"[\[<>=~!; ]", entry)[0] for group in groups for entry in group}
    table = README.read_text().split("## Dependencies")[1]
    unexplained = {name for name in names if not re.search(rf"\b{re.escape(name)}\b", table)} - {
        name for name in names if name.startswith("types-")
    }
    assert not unexplained


def test_make_help_lists_every_target_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z][a-z-]+)", README.read_text())) - {"sure"}
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert named <= documented
