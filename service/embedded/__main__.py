"""`python -m service.embedded`: the embedded Triton alone, in the foreground, as the CPU container runs it."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.contract import MODELS
from service.embedded.binary import BinaryMissingError
from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor, TritonStartError
from service.logs import configure

_REAP_PERIOD_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 after a drain, 1 when the server cannot start."""
    options = _parser().parse_args(arguments)
    configure(options.log_level, options.log_format)
    settings = EmbeddedSettings(
        repository=options.repository,
        models=tuple(options.model or MODELS),
        others=options.model is None,
        host=options.host,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        admin_file=options.admin_file,
        cache=options.cache,
        start_timeout_s=options.start_timeout_s,
        exit_timeout_s=options.exit_timeout_s,
        log_verbose=options.log_verbose,
        otlp_endpoint=options.otlp_endpoint,
    )
    try:
        asyncio.run(_serve(settings))
    except (BinaryMissingError, TritonStartError, OSError) as error:
        print(f"service.embedded: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.embedded",
        description="The embedded Triton alone, supervised: restarted when it ends, healed when a model's process "
        "dies, drained on SIGTERM and SIGINT.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--repository", type=Path, default=Path("model_repository"), help="model repository")
    add("--model", action="append", help="model to load, repeatable; default: every one of the repository")
    add("--host", default="127.0.0.1", help="address of all listeners")
    add("--grpc-port", type=int, default=8001, help="0 picks a free one, as for the next two")
    add("--http-port", type=int, default=8000, help="KServe over HTTP")
    add("--metrics-port", type=int, default=8002, help="Prometheus")
    add("--admin-file", type=Path, help="`depthlens=secret` that opens model control; made if it is not there")
    add("--cache", type=Path, help="folder of compiled networks; not used where it is not writable")
    add("--start-timeout-s", type=float, default=120.0, help="from process start to the first answer")
    add("--exit-timeout-s", type=int, default=10, help="for requests in flight on a stop")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="debug shows Triton's log")
    add("--log-format", choices=("text", "json"), default="text", help="json: one object a line")
    add("--otlp-endpoint", help="http://host:port of an OpenTelemetry collector that Triton's spans go to")
    add("--log-verbose", type=int, default=0, help="Triton's own verbosity")
    return parser


async def _serve(settings: EmbeddedSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reaper = asyncio.create_task(_reap()) if os.getpid() == 1 else None
    supervisor = Supervisor(settings)
    start = asyncio.create_task(supervisor.start())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([start, stopped], return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await stopped
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
    finally:
        await supervisor.stop()
        stopped.cancel()
        if reaper is not None:
            reaper.cancel()


async def _reap() -> None:
    """Process 1 inherits every orphan of its container and has to collect their ends; only those nobody waits for."""
    while True:
        await asyncio.sleep(_REAP_PERIOD_S)
        with suppress(ChildProcessError):  # no children at all, or asyncio was quicker
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                await asyncio.sleep(_REAP_PERIOD_S)  # asyncio collects its own children meanwhile
                os.waitpid(ended.si_pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main())
