"""Published weights that `depthlens weights pull` fetches onto the user's machine, and under which terms.

None is shipped. What is fetched becomes a served model by `python -m training import` and `export`.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from service.download import Download, DownloadError

_HUGGING_FACE = "https://huggingface.co/depth-anything"
_DPT = "https://github.com/isl-org/DPT"
_RELEASE = f"{_DPT}/releases/download/1_0"


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        name: For the command line.
        network: What `python -m training import --as` calls it.
        file: Name it is kept under.
        url: On its authors' host; empty when they offer no direct address.
        size_bytes: Of the file; None = not known here.
        license: Of the weights.
        sha256: Of the file; empty = not known here.
        sha256_begins: What its authors wrote of it into the file's name.
        page: Where people read about it.
        about: One line.
    """

    name: str
    network: str
    file: str
    url: str
    size_bytes: int | None
    license: str
    sha256: str
    page: str
    about: str
    sha256_begins: str = ""


_ENTRIES = (
    Weights(
        name="depth_anything_v2_small",
        network="depth_anything_v2_small",
        file="depth_anything_v2_vits.pth",
        url=f"{_HUGGING_FACE}/Depth-Anything-V2-Small/resolve/main/depth_anything_v2_vits.pth",
        size_bytes=99_218_434,
        license="Apache-2.0",
        sha256="715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
        page=f"{_HUGGING_FACE}/Depth-Anything-V2-Small",
        about="relative inverse depth, 24.8 M parameters",
    ),
    Weights(
        name="depth_anything_v2_small_hf",
        network="depth_anything_v2_small",
        file="depth_anything_v2_small.safetensors",
        url=f"{_HUGGING_FACE}/Depth-Anything-V2-Small-hf/resolve/main/model.safetensors",
        size_bytes=99_173_660,
        license="Apache-2.0",
        sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        page=f"{_HUGGING_FACE}/Depth-Anything-V2-Small-hf",
        about="the same as safetensors, in the layout for transformers",
    ),
    Weights(
        name="depth_anything_v2_base",
        network="depth_anything_v2_base",
        file="depth_anything_v2_vitb.pth",
        url=f"{_HUGGING_FACE}/Depth-Anything-V2-Base/resolve/main/depth_anything_v2_vitb.pth",
        size_bytes=389_961_218,
        license="CC-BY-NC-4.0",
        sha256="0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
        page=f"{_HUGGING_FACE}/Depth-Anything-V2-Base",
        about="relative inverse depth, 97.5 M parameters",
    ),
    Weights(
        name="depth_anything_v2_large",
        network="depth_anything_v2_large",
        file="depth_anything_v2_vitl.pth",
        url=f"{_HUGGING_FACE}/Depth-Anything-V2-Large/resolve/main/depth_anything_v2_vitl.pth",
        size_bytes=1_341_395_338,
        license="CC-BY-NC-4.0",
        sha256="a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
        page=f"{_HUGGING_FACE}/Depth-Anything-V2-Large",
        about="relative inverse depth, 335.3 M parameters",
    ),
    Weights(
        name="dpt_large",
        network="dpt_large",
        file="dpt_large-midas-2f21e586.pt",
        url=f"{_RELEASE}/dpt_large-midas-2f21e586.pt",
        size_bytes=1_376_378_527,
        license="MIT",
        sha256="2f21e586477d90cb9624c7eef5df7891edca49a1c4795ee2cb631fd4daa6ca69",
        page=_DPT,
        about="relative inverse depth, 344 M parameters (MiDaS 3.0)",
    ),
    Weights(
        name="dpt_hybrid",
        network="dpt_hybrid",
        file="dpt_hybrid-midas-501f0c75.pt",
        url=f"{_RELEASE}/dpt_hybrid-midas-501f0c75.pt",
        size_bytes=None,
        license="MIT",
        sha256="501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
        page=_DPT,
        about="relative inverse depth, 123 M parameters (MiDaS 3.0)",
    ),
    Weights(
        name="dpt_large_ade20k",
        network="dpt_large_ade20k",
        file="dpt_large-ade20k-b12dca68.pt",
        url=f"{_RELEASE}/dpt_large-ade20k-b12dca68.pt",
        size_bytes=None,
        license="MIT",
        sha256="",
        sha256_begins="b12dca68",
        page=_DPT,
        about="people (class 12 of ADE20K's 150), 345 M parameters",
    ),
    Weights(
        name="focus_on_depth",
        network="focus_on_depth_vit_base",
        file="FocusOnDepth_vit_base_patch16_384.p",
        url="",
        size_bytes=None,
        license="MIT",
        sha256="",
        page="https://github.com/antocad/FocusOnDepth#bank-model-zoo",
        about="inverse depth and people, 104 M parameters; by hand, from the drive its page names",
    ),
)

CATALOGUE = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""What is known, by name."""

_NOTES = (
    "CC-BY-NC-4.0: not for commercial use.",
    "SHA-256 not known: the file is kept once --sha256 names one that you trust.",
)


def listing() -> str:
    """The catalogue as a table for a terminal."""
    rows = [("NAME", "SIZE", "LICENSE", "SHA-256", "WHAT")]
    for entry in CATALOGUE.values():
        size = _megabytes(entry.size_bytes) if entry.size_bytes else "?"
        digest = f"{entry.sha256[:12]}..." if entry.sha256 else "not known"
        rows.append((entry.name, size, entry.license, digest, entry.about))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join((*map(str.ljust, row[:4], widths), row[4])) for row in rows]
    return "\n".join([*lines, "", *_NOTES])


def pull(name: str, folder: Path, sha256: str = "", url: str = "") -> str:
    """Fetches one entry and shows how far it is.

    Args:
        name: In `CATALOGUE`.
        folder: Where its file goes.
        sha256: That the user trusts, where the catalogue knows none.
        url: Of a mirror; the digest stays the catalogue's.

    Returns:
        What is there now, and what to do with it.

    Raises:
        DownloadError: See `service.download`; or no such entry, no address, or a digest that contradicts the catalogue.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise DownloadError(f"no weights {name!r}; known: {', '.join(CATALOGUE)}")
    wanted = sha256.lower()
    if wanted and (len(wanted) != 64 or set(wanted) - set("0123456789abcdef")):
        raise DownloadError(f"--sha256 {sha256}: not 64 hexadecimal digits")
    if wanted and (not wanted.startswith(entry.sha256_begins) or entry.sha256 not in ("", wanted)):
        known = entry.sha256 or f"{entry.sha256_begins}..."
        raise DownloadError(f"--sha256 {wanted} contradicts the catalogue, which knows {known}")
    if not (url or entry.url):
        raise DownloadError(f"{name} has no direct address: get {entry.file} from {entry.page} by hand")
    target = folder / entry.file
    with _Bar(entry.file) as bar:
        fetched = Download(url or entry.url, target, entry.sha256 or wanted or None, entry.sha256_begins).run(bar.show)
    terms = entry.license + (" (not for commercial use)" if "-NC-" in entry.license else "")
    return (
        f"{target}: {'fetched' if fetched else 'there already'}, SHA-256 as expected; license {terms}\n"
        f"next: python -m training import --weights {target} --as {entry.network} --out runs/{entry.network}.pt"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class _Bar:
    """How far a download is, on standard error: redrawn in a terminal, a line every tenth elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._terminal = sys.stderr.isatty()
        self._start: tuple[float, int] | None = None  # s, bytes
        self._shown = -1.0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._start:
            print(file=sys.stderr)

    def show(self, have: int, total: int | None) -> None:
        now = time.monotonic()
        self._start = self._start or (now, have)
        share = have / total if total else 0.0
        mark = now * 5 if self._terminal else share * 10
        if mark - self._shown < 1 and have != total:
            return
        self._shown = mark
        speed = (have - self._start[1]) / max(now - self._start[0], 1e-3)
        done = "#" * int(20 * share)
        of = f"[{done:.<20}] {share:4.0%} {_megabytes(have)} of {_megabytes(total)}" if total else _megabytes(have)
        line = f"{self._label} {of}, {_megabytes(int(speed))}/s"
        print(f"\r{line}\033[K" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
