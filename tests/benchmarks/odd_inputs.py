"""Every file of a folder posted to the three photo routes of a running gateway; the outcomes as a table by type.

    python tests/benchmarks/odd_inputs.py --url http://127.0.0.1:8080 ../shared/data/odd -o docs/results/odd_inputs.md

Exits with 1 when an answer is neither 2xx nor a documented 4xx, or a body shows our insides.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

ROUTES = ("depth", "segmentation", "focus?rx=0.5&ry=0.5")
DOCUMENTED = {400, 413, 415, 422}
LEAKS = ("Traceback", "site-packages", '.py"', "/root/", "/home/", "triton_python_backend_shm")


def outcome(url: str, body: bytes) -> tuple[int, str, str]:
    """Status, code (`ok` for 2xx), and the body's text when it is a problem."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return answer.status, "ok", ""
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        return error.code, str(json.loads(text).get("code")), text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    wrong = []
    slowest = (0.0, "")
    for path in files:
        body = path.read_bytes()
        kind = (path.relative_to(options.folder).parts[0], path.suffix.lower().lstrip(".") or "none")
        for route in ROUTES:
            start = time.monotonic()
            status, code, text = outcome(f"{options.url}/{route}", body)
            slowest = max(slowest, (time.monotonic() - start, f"{path.relative_to(options.folder)} {route}"))
            table[kind][f"{status} {code}"] += 1
            if not (status == 200 or status in DOCUMENTED) or any(leak in text for leak in LEAKS):
                wrong.append(f"{path} {route}: {status} {text[:200]}")
    lines = [
        "# Odd inputs",
        "",
        f"{len(files)} files, each posted to {', '.join('`/' + route.split('?')[0] + '`' for route in ROUTES)} of the "
        "real gateway and Triton. Command: `python tests/benchmarks/odd_inputs.py FOLDER`.",
        f"Answers that are neither 2xx nor a documented 4xx, or that leak: **{len(wrong)}**. "
        f"Slowest answer: {slowest[0]:.1f} s ({slowest[1].split('?')[0]}).",
        "",
        "| collection | type | outcomes (three routes together) |",
        "|---|---|---|",
    ]
    for (collection, suffix), counts in sorted(table.items()):
        outcomes = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
        lines.append(f"| {collection} | {suffix} | {outcomes} |")
    text = "\n".join(lines) + "\n"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    print(text)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
