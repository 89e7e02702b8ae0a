"""Markdown tables of an evaluation report, and their place in a page."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from training.errors import TrainingError
from training.evaluation import MEANS
from training.report import Entry

BEGIN, END = "<!-- scores: made by `python -m training evaluate --table` -->", "<!-- end of scores -->"

_WORST = 5  # pictures of each network that are listed

Row = dict[str, float]
Cell = Callable[[Row], str | None]


def markdown(entries: Sequence[Entry]) -> str:
    """Tables of everything that was judged: a row is a source, a column a network or a peer."""
    depth = [(entry.name, entry.tables.get("depth", {})) for entry in entries]
    edges = _with_sharp(entries, "depth")
    pairs = [(entry.name, entry.tables.get("rgbd", {})) for entry in entries]
    people = _with_sharp(entries, "person")
    scenes = [(entry.name, entry.tables.get("scenes", {})) for entry in entries]
    blocks = [
        _block("delta1 (higher is better)", depth, _number("delta1")),
        _block("AbsRel (lower is better)", depth, _number("abs_rel")),
        _block("Polarity, and pictures where it is above 0", depth, _polarity),
        _block("Boundary F1 within 1/320 of the longer side (higher is better)", edges, _number("boundary_f1", 3)),
        _block("Boundary F1, pixel for pixel as Depth Pro has it", edges, _number("boundary_f1_strict", 3)),
        _block("Pairs of `rgbd`: delta1 / AbsRel / boundary F1", pairs, _pair),
        _block("Person IoU (higher is better)", people, _number("iou")),
        _block("The same without found pieces apart from the labelled person", people, _number("labelled_iou", 3)),
        _block("Rendered scenes no training sees: delta1 / AbsRel / boundary F1", scenes, _pair),
        _block("Of rendered scenes: person IoU", scenes, _number("iou")),
        _worst(entries),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _with_sharp(entries: Sequence[Entry], part: str) -> list[tuple[str, dict[str, Row]]]:
    """Columns of a part, behind each network's the one with the service's `edges=sharp`."""
    return [
        column
        for entry in entries
        for column in (
            (entry.name, entry.tables.get(part, {})),
            (f"{entry.name}, edges=sharp", entry.tables.get(f"{part}_sharp", {})),
        )
    ]


def _number(metric: str, digits: int = 2) -> Cell:
    def cell(row: Row) -> str | None:
        return f"{row[metric]:.{digits}f}" if metric in row else None

    return cell


def _polarity(row: Row) -> str | None:
    return f"{row['polarity']:+.2f} ({row['right_polarity']:.0f})" if "polarity" in row else None


def _pair(row: Row) -> str | None:
    if "delta1" not in row:
        return None
    edges = f"{row['boundary_f1']:.3f}" if "boundary_f1" in row else "-"
    return f"{row['delta1']:.2f} / {row['abs_rel']:.2f} / {edges}"


def _block(title: str, columns: Sequence[tuple[str, dict[str, Row]]], cell: Cell) -> str:
    """One table; empty when no column has a value. Means over sources stand last, and `all` only if it says more."""
    columns = [(name, table) for name, table in columns if any(cell(row) for row in table.values())]
    found = dict.fromkeys(source for _, table in columns for source in table)
    means = [name for name in MEANS if name in found and ("rendered" in found or name == "real")]
    rows = [source for source in found if source not in MEANS and any(cell(t.get(source, {})) for _, t in columns)]
    if not rows:
        return ""
    lines = []
    for source in [*rows, *means]:
        count = max(table[source]["pictures"] for _, table in columns if source in table)
        cells = [cell(table.get(source, {})) or "" for _, table in columns]
        name = f"**mean, {source}**" if source in MEANS else source
        lines.append([name, f"{count:.0f}", *cells])
    return f"### {title}\n" + table(["source", "pictures", *(name for name, _ in columns)], lines)


def _worst(entries: Sequence[Entry]) -> str:
    lines = []
    for entry in entries:
        judged = [score for score in entry.pictures if entry.is_network and "delta1" in score.values]
        for score in sorted(judged, key=lambda s: s.values["delta1"])[:_WORST]:
            values = score.values
            lines.append([entry.name, score.name, f"{values['delta1']:.2f}", f"{values['polarity']:+.2f}"])
    if not lines:
        return ""
    return "### Worst pictures by delta1\n" + table(["network", "picture", "delta1", "polarity"], lines)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of its heading and its lines, all of one length."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def write_tables(text: str, path: Path, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Puts tables into a page between its two marks, or makes a page of nothing else.

    Raises:
        TrainingError: The page is there, but has no marks, or cannot be written.
    """
    first, last = marks
    body = f"{first}\n{text}{last}\n"
    try:
        if path.is_file():
            before, begin, rest = path.read_text().partition(first)
            _, end, after = rest.partition(last + "\n")
            if not begin or not end:
                raise TrainingError(f"{path} has no lines '{first}' and '{last}' for the tables to go between")
            body = before + body + after
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    except OSError as error:
        raise TrainingError(f"page {path}: {error.strerror}") from error
