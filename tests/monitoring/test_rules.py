"""Prometheus' configuration and rules: valid, tested alert by alert, and each with a runbook to follow."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus import MISSING, MONITORING, find

ROOT = Path(__file__).parents[2]
RULES = sorted((MONITORING / "rules").glob("*.yml"))
HISTORIES = Path(__file__).with_name("rules_test.yml")
ALERTS = [
    rule
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
NAMES = [rule["alert"] for rule in ALERTS]


def promtool(*arguments: object) -> "subprocess.CompletedProcess[str]":
    tool = find("promtool")
    if tool is None:
        pytest.skip(MISSING)
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=250)


def test_configuration_and_rules_are_valid() -> None:
    done = promtool("check", "config", MONITORING / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_histories_fire_what_they_should() -> None:
    done = promtool("test", "rules", HISTORIES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("instead", ["vector(1)", "vector(1) > 1"], ids=["always", "never"])
def test_histories_tell_wrong_rules(instead: str, tmp_path: Path) -> None:
    """An alert that fires always or never is found out: each has a history where it fires and one where it does not."""
    for path in RULES:
        rules = yaml.safe_load(path.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
            rule["expr"] = instead
        (tmp_path / path.name).write_text(yaml.safe_dump(rules))
    histories = yaml.safe_load(HISTORIES.read_text())
    histories["rule_files"] = [path.name for path in RULES]
    (tmp_path / "histories.yml").write_text(yaml.safe_dump(histories))
    done = promtool("test", "rules", tmp_path / "histories.yml")
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(re.findall(r"alertname: (\w+), time", done.stdout + done.stderr)) == set(NAMES)


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_each_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    sections = re.split(r"^### ", (ROOT / path).read_text(), flags=re.MULTILINE)
    [section] = [text for text in sections if text.split("\n", 1)[0].lower() == anchor]
    for part in ("**Means**", "**Why**", "**Look at**", "**Do**"):
        assert part in section, f"{rule['alert']} has no {part}"


def test_the_page_has_no_runbook_of_an_alert_that_is_gone() -> None:
    headings = set(re.findall(r"^### (Depthlens\w+)$", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE))
    assert headings == set(NAMES)
