"""From nothing to the first answer: what is installed, how long a start takes, what the first request costs."""

import re
import statistics
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from service.benchmark.effort import Effort
from service.benchmark.page import Part, Table
from service.benchmark.pictures import jpeg, photo
from service.benchmark.serving import Caller, serving

_OURS: Final = "depthlens"
_EXTRA: Final = "embedded"


def run(effort: Effort) -> Part:
    """Megabytes of an installation that serves, and seconds of several starts."""
    packages = sizes()
    largest = sorted(packages.items(), key=lambda item: -item[1])[:5]
    body = jpeg(photo(*effort.small))
    starts: list[float] = []
    firsts: list[float] = []
    seconds: list[float] = []
    for _ in range(max(1, effort.rounds - 2)):
        with serving(effort.repository) as served:
            starts.append(served.ready_s)
            caller = Caller(served.port)
            for times in (firsts, seconds):
                start = time.perf_counter()
                caller.post("/depth", body)
                times.append((time.perf_counter() - start) * 1000)
            caller.close()
    figures = {
        "install MB": sum(packages.values()) / 1e6,
        "start to ready, s": statistics.median(starts),
        "first request, ms": statistics.median(firsts),
        "second request, ms": statistics.median(seconds),
    }
    named = ", ".join(f"{name} {count / 1e6:.0f}" for name, count in largest)
    rows = (
        ("installed, without torch", f"{figures['install MB']:.0f} MB", f"{len(packages)} packages; {named}"),
        ("start to ready", f"{figures['start to ready, s']:.1f} s", f"{min(starts):.1f} to {max(starts):.1f}"),
        ("first request", f"{figures['first request, ms']:.0f} ms", f"{next(iter(effort.photos))} JPEG to 16-bit PNG"),
        ("second request", f"{figures['second request, ms']:.0f} ms", "the same"),
    )
    note = (
        f"Files that `pip install '{_OURS}[{_EXTRA}]'` brings, as their own lists have them, compiled Python included; "
        f"medians of {len(starts)} starts of `depthlens serve`, each from the process's start until it says it is "
        "ready, which a real inference has proved."
    )
    return Part("cold", (Table("From nothing to an answer", ("", "", ""), rows, note),), figures)


def sizes() -> dict[str, int]:
    """Bytes of the files of each package that serving needs, its own included, by what is installed here."""
    found: dict[str, int] = {}
    waiting = [(_OURS, frozenset({_EXTRA}))]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another system or Python
        found[name] = _bytes(package) if name != _OURS else _own_bytes()
        waiting += [each for line in package.requires or () if (each := _wanted(line, extras)) is not None]
    return found


def _wanted(line: str, extras: frozenset[str]) -> tuple[str, frozenset[str]] | None:
    """A requirement's normal name and extras; None where it belongs to an extra that nobody asked for.

    Other markers are not read: what they exclude is not installed, and skipped for that.
    """
    requirement, _, marker = line.partition(";")
    if needed := re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker):
        if needed[1] not in extras:
            return None
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", requirement)
    if match is None:
        return None
    name = re.sub(r"[-_.]+", "-", match[1]).lower()
    return name, frozenset(each.strip() for each in (match[2] or "").split(",") if each.strip())


def _bytes(package: Distribution) -> int:
    return sum(path.stat().st_size for each in package.files or () if (path := Path(str(each.locate()))).is_file())


def _own_bytes() -> int:
    """Of this package itself, which may be installed editable."""
    root = Path(__file__).parents[1]
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
