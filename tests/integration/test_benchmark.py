"""The benchmarks run: figures of these tiny inputs mean nothing, their tables and targets must be whole."""

import json

import pytest

from service import commands
from service.benchmark.clock import interleave, quartiles
from service.benchmark.cold import sizes
from service.benchmark.page import Part, Table
from service.benchmark.serving import distinct
from service.imaging import codec


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    seen: list[str] = []
    timings = interleave({"peer": lambda: seen.append("peer"), "ours": lambda: seen.append("ours")}, rounds=3)
    assert seen == ["peer", "ours"] * 4, "once before, then by turns"
    assert timings["peer"].ratio == timings["peer"].ratio_low == 1
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_a_part_survives_json() -> None:
    table = Table(
        "Speed", ("contender", "ms", "errors"), (("ours", "1.5", "none"), ("theirs", "", "two")), "Note.", "ms"
    )
    part = Part("infer", (table,), {"ratio": 2.0}, {"time": "now", "commit": "abc", "load": "load 0.0"})
    assert Part.of(json.loads(json.dumps(part.plain()))) == part
    assert table.bars() == {"ours": 1.5}
    assert "| ours | 1.5 | none |" in part.markdown()
    assert part.markdown().startswith("## infer\n\nnow, abc, load 0.0.")


def test_no_cache_knows_two_of_the_same_photo() -> None:
    from service.benchmark.pictures import jpeg, photo

    body = jpeg(photo(32, 48))
    copies = distinct(body)
    first, second = next(copies), next(copies)
    assert first != second
    assert (codec.decode(first).pixels == codec.decode(body).pixels).all()
    assert codec.survey(second, codec.Limits()).ordinary, "else another process decodes it"


def test_the_installation_is_counted_without_what_only_training_needs() -> None:
    found = sizes()
    assert {"depthlens", "numpy", "openvino", "nvidia-pytriton", "tritonclient", "grpcio"} <= set(found)
    assert not {"torch", "timm", "pytest"} & set(found)
    assert found["openvino"] > 50e6


@pytest.mark.integration
def test_depthlens_bench_measures_every_part(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert commands.run(["bench", "--quick", "--only", "limit", "infer", "stages", "--json", str(file)]) == 0
    page = capsys.readouterr().out
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == ["limit", "infer", "stages"]
    for part in parts.values():
        assert all(value > 0 for value in part["figures"].values()), part
        assert all(f"### {table['title']}" in page for table in part["tables"])
    stages = parts["stages"]["tables"][0]
    assert stages["header"][1:-1] == ["ms", "decode ms", "infer ms", "render ms", "encode ms"]
    for row in stages["rows"]:
        assert float(row[1]) >= max(map(float, row[2:-1])), "a stage takes no longer than all of it"


def test_depthlens_bench_says_in_one_line_what_is_missing(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["bench", "--quick", "--model-repository", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"depthlens: there is no default network in {tmp_path}")
