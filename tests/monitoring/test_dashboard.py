"""The Grafana dashboard: Grafana's own models read all of it, and Prometheus parses every query."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_foundation_sdk.models.stat import Options as StatOptions
from grafana_foundation_sdk.models.timeseries import FieldConfig as TimeseriesFieldConfig
from grafana_foundation_sdk.models.timeseries import Options as TimeseriesOptions
from prometheus import MISSING, MONITORING, find

DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "depthlens.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
UNITS = {"none", "s", "bytes", "percentunit", "reqps", "ops", "cpm"}
"""Of Grafana's, those in use."""


def queries() -> list[str]:
    """Every expression of the dashboard with its variables filled in."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [filled(expression) for expression in found]


def filled(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def encoded(model: Any) -> Any:
    """As JSON, empty things left out."""
    return json.loads(json.dumps(model, default=lambda each: each.to_json()))


def lost(given: Any, read: Any, at: str = "") -> list[str]:
    """What of `given` is not in `read`."""
    if isinstance(given, dict):
        if not isinstance(read, dict):
            return [at]
        return [path for key, each in given.items() for path in lost(each, read.get(key), f"{at}.{key}")]
    if isinstance(given, list):
        if not isinstance(read, list) or len(given) != len(read):
            return [at]
        return [
            path for n, (one, two) in enumerate(zip(given, read, strict=True)) for path in lost(one, two, f"{at}.{n}")
        ]
    empty = given in (None, False, 0, "") and read in (None, False, 0, "")
    return [] if given == read or empty else [f"{at}: {given!r} is read as {read!r}"]


def test_grafana_s_models_read_all_of_it() -> None:
    read = encoded(Dashboard.from_json(DASHBOARD))
    # Written by Grafana's data source plugins, of which the models know nothing.
    unknown = {path for path in lost(DASHBOARD, read) if not re.match(r"\.panels\.\d+\.targets|\.annotations", path)}
    assert not unknown
    assert "panels.0.tittle" in "".join(lost({"panels": [{"tittle": "x"}]}, {"panels": [{}]}))  # it finds what is not


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_each_panel_can_be_read_by_people(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 30
    assert defaults["unit"] in UNITS
    assert panel["targets"]
    assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    if panel["type"] == "timeseries":
        assert not lost(panel["options"], encoded(TimeseriesOptions.from_json(panel["options"])))
        assert not lost(defaults["custom"], encoded(TimeseriesFieldConfig.from_json(defaults["custom"])))
    else:
        assert panel["type"] == "stat"
        assert not lost(panel["options"], encoded(StatOptions.from_json(panel["options"])))


def test_panels_do_not_cover_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    tool = find("promtool")
    if tool is None:
        pytest.skip(MISSING)
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([tool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "depthlens.yml").read_text())["providers"]
    services = yaml.safe_load((MONITORING.parent / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in services["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "./monitoring/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./monitoring/grafana/provisioning"
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
