"""What a part of the benchmark found: tables for people, figures for targets; as Markdown and as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """One comparison.

    Attributes:
        title: what was measured.
        header: of the columns.
        rows: as they are shown.
        note: what to know when reading it.
        plotted: heading of the column of numbers that a plot shows, if any.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    plotted: str = ""

    def markdown(self) -> str:
        """A section with a table."""
        lines = [f"### {self.title}", "", *([self.note, ""] if self.note else [])]
        lines += [f"| {' | '.join(self.header)} |", "|" + "---|" * len(self.header)]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)]) + "\n"

    def bars(self) -> dict[str, float]:
        """The plotted column by the first one; rows without a number there are left out."""
        if not self.plotted:
            return {}
        column = self.header.index(self.plotted)
        found = {}
        for row in self.rows:
            try:
                found[row[0]] = float(row[column])
            except ValueError:
                continue
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """What one module of the benchmark measured.

    Attributes:
        name: as in `--only`.
        tables: for people.
        figures: by name, for targets and for machines.
        about: of machine and versions at that time.
    """

    name: str
    tables: tuple[Table, ...]
    figures: dict[str, float] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """All tables under one heading."""
        said = ", ".join(self.about[name] for name in ("time", "commit", "cpu", "load") if name in self.about)
        head = f"## {self.name}\n\n" + (f"{said}.\n\n" if said else "")
        return head + "\n".join(table.markdown() for table in self.tables)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Part":
        """From what `plain` gave, read back from JSON."""
        tables = tuple(
            Table(**(each | {"header": tuple(each["header"]), "rows": tuple(map(tuple, each["rows"]))}))
            for each in plain["tables"]
        )
        return cls(plain["name"], tables, plain["figures"], plain["about"])
