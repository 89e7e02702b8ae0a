"""`make bench` beside its peers, on tiny networks: torch, transformers, ONNX Runtime, OpenVINO and the real service."""

import importlib
import json
import pkgutil

import pytest

pytest.importorskip("transformers", reason="the peer, transformers, is not installed (group dev)")

from service.benchmark.page import Part  # after the check
from tests import benchmarks
from tests.benchmarks.targets import TARGETS, Target, bounds, table


def test_a_target_is_met_from_its_bound_on() -> None:
    least = Target("speed", 6, lambda figures: figures["infer"]["ratio"])
    most = Target("hop", 0.5, lambda figures: figures["gateway"]["ms"], at_most=True, unit=" ms")
    figures = {"infer": {"ratio": 5.99}, "gateway": {"ms": 0.5}}
    assert least.row(figures) == ("speed", "at least 6", "5.99", "**not met**")
    assert least.row({"infer": {"ratio": 6.0}})[3] == "met"
    assert most.row(figures) == ("hop", "at most 0.5 ms", "0.5 ms", "met")
    assert most.row({}) == ("hop", "at most 0.5 ms", "", "not measured: gateway")


def test_the_share_of_the_limit_is_counted_from_operations() -> None:
    # 115 GFLOP at 230 GFLOP/s take 500 ms; the network takes 1000
    figures = {"da, GFLOP": 115.0, "da, OpenVINO bf16, 1 threads, ms": 1000.0}
    parts = [Part("infer", (), figures), Part("limit", (), {"bf16_1": 230.0})]
    rows = {row[0]: row for row in table(parts).rows}
    assert bounds(parts) == [], "what was not measured bounds nothing"
    assert rows["share of the measured bf16 matrix product, the same network, 1 thread"][2:] == ("0.5", "**not met**")
    assert len(rows) == len(TARGETS)


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "tests.benchmarks.")]
)
def test_every_benchmark_finds_what_it_imports(name) -> None:
    """Most run for minutes and not in CI; what moves away from under them must show all the same."""
    assert importlib.import_module(name)


@pytest.mark.integration
def test_every_part_runs(tmp_path) -> None:
    from tests.benchmarks.__main__ import main

    main(["--quick", "--only", "limit", "infer", "serve", "--out", str(tmp_path)])
    main(["--quick", "--only", "gateway", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "performance.json").read_text())
    assert list(found) == ["limit", "infer", "serve", "gateway"], "parts of both runs"
    figures = found["infer"]["figures"]
    assert figures["da, ONNX Runtime fp32, 1 threads, mean error"] < 1e-3, "the same weights everywhere"
    assert figures["da, OpenVINO f32, 1 threads, mean error"] < 1e-3
    assert (tmp_path / "performance.png").stat().st_size > 10_000
    page = (tmp_path / "performance.md").read_text()
    assert "| Triton ensemble / in-process, the default network | at most 1.03 |" in page
    assert "not measured: request" in page
