"""`make fuzz`: atheris on the header parsers, guided by what the bytes reach; a find is kept in `tests/failures/`."""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service.imaging"]):
    from service.imaging import codec  # noqa: F401  # imported here so that it is instrumented

from . import headers

FINDS = Path(__file__).parents[1] / "failures"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    FINDS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(headers.seeds()):
            Path(corpus, f"seed-{number}").write_bytes(data)
        arguments = [
            sys.argv[0],
            f"-max_total_time={options.seconds}",
            f"-seed={options.seed}",
            "-max_len=4096",
            "-timeout=5",  # seconds for one file
            "-rss_limit_mb=1024",
            f"-artifact_prefix={FINDS}/header-",
            "-print_final_stats=1",
            corpus,
        ]
        atheris.Setup(arguments, headers.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
