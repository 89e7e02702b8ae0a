"""Kills, hangs and stops of the real server: what is noticed, what is healed, what is left behind."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from embedded_triton import (
    eventually,
    expected_outputs,
    make_repository,
    noise,
    processes,
    shared_memory,
    working_directories_without_a_launch,
)
from tritonclient.grpc.aio import InferenceServerClient

from service.canary import Canary
from service.embedded import shm, supervisor
from service.embedded.process import Ports, pick_ports, remove_stale, session_members
from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor, TritonStartError
from service.errors import DepthlensError, ModelUnavailable
from service.inference import TritonClient

pytestmark = pytest.mark.integration

STUB, SERVER = "python_backend_stub", "tritonserver"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No shared memory that nobody uses, no working directory of a launch that is over, but those of others before."""
    before = working_directories_without_a_launch()
    yield
    assert shm.remove_stale() == []
    assert working_directories_without_a_launch() <= before


def fast(repository: Path) -> EmbeddedSettings:
    """Quick to notice, and quick to end: the guard kills what Triton does not end within no time."""
    return EmbeddedSettings(repository, canary_period_s=0.2, exit_timeout_s=0)


async def answers(client: TritonClient) -> bool:
    image = noise((64, 64))
    try:
        prediction = await client.infer("focus", image, timeout_s=3.0)
    except DepthlensError:
        return False
    return bool((prediction.outputs["person"] == expected_outputs(image)["person"]).all())


async def until_it_answers(client: TritonClient, within_s: float) -> float:
    started = time.monotonic()
    while not await answers(client):
        assert time.monotonic() - started < within_s
        await asyncio.sleep(0.05)
    return time.monotonic() - started


def test_a_killed_stub_is_noticed_and_healed(repository: Path) -> None:
    """Triton itself goes on saying ready: that is why readiness is a canary."""

    async def scenario() -> None:
        async with Supervisor(fast(repository)) as supervisor:
            client, session = TritonClient(supervisor.grpc_url), supervisor.pid
            assert session is not None
            gateway_canary = Canary(client, "focus", period_s=0.2)
            watch = asyncio.create_task(gateway_canary.run())
            await eventually(lambda: gateway_canary.state.ready, 5)
            [stub] = processes(session, STUB)
            os.kill(stub, signal.SIGKILL)
            async with InferenceServerClient(supervisor.grpc_url) as raw:
                assert await raw.is_server_ready()
                assert await raw.is_model_ready("focus_on_depth")
            # Either's probe may find it first, and the supervisor's may heal it before the other one comes round.
            noticed_s = await eventually(lambda: not (supervisor.ready and gateway_canary.state.ready), 5)
            healed_s = await until_it_answers(client, 10 - noticed_s)
            await eventually(lambda: supervisor.ready and gateway_canary.state.ready, 5)
            assert (supervisor.reloads, supervisor.restarts) == (1, 0)
            assert processes(session, STUB) not in ([], [stub])
            print(f"stub killed: noticed after {noticed_s:.2f} s, healed after {noticed_s + healed_s:.2f} s")
            watch.cancel()
            await client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("victim", [SERVER, "python"], ids=["tritonserver", "guard"])
def test_a_killed_server_is_started_again(repository: Path, victim: str) -> None:
    async def scenario() -> None:
        async with Supervisor(fast(repository)) as supervisor:
            client, session, url = TritonClient(supervisor.grpc_url), supervisor.pid, supervisor.grpc_url
            assert session is not None
            before = shared_memory(session)
            assert before
            [pid] = processes(session, SERVER) if victim == SERVER else [session]
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: supervisor.restarts == 1, 10)
            restarted_s = await until_it_answers(client, 10)
            assert supervisor.grpc_url == url
            assert session_members(session) == []
            assert not any(path.exists() for path in before)
            print(f"{victim} killed: answers again {restarted_s:.2f} s after the restart began")
            await client.close()

    asyncio.run(scenario())


def test_a_hung_model_is_restarted(repository: Path) -> None:
    async def scenario() -> None:
        settings = EmbeddedSettings(
            repository, canary_period_s=0.2, canary_timeout_s=0.5, unhealthy_after_s=1.5, exit_timeout_s=0
        )
        async with Supervisor(settings) as supervisor:
            client, session = TritonClient(supervisor.grpc_url), supervisor.pid
            assert session is not None
            [stub] = processes(session, STUB)
            os.kill(stub, signal.SIGSTOP)
            # Two late probes, 1.4 s; but the pause between them is twenty times the quickest answer, of which there is
            # only one yet, and a stall of the machine in it makes that seconds.
            await eventually(lambda: not supervisor.ready, 20)
            await eventually(lambda: supervisor.restarts == 1, 20)
            await until_it_answers(client, 20)
            assert session_members(session) == []
            await client.close()

    asyncio.run(scenario())


def test_two_servers_at_once_and_stop_is_complete(repository: Path) -> None:
    async def scenario() -> list[int]:
        async with Supervisor(fast(repository)) as first, Supervisor(fast(repository)) as second:
            ports = [first.ports.grpc, first.ports.http, first.ports.metrics]
            ports += [second.ports.grpc, second.ports.http, second.ports.metrics]
            assert len(set(ports)) == 6
            for supervisor in (first, second):
                client = TritonClient(supervisor.grpc_url)
                assert await answers(client)
                await client.close()
            sessions = [first.pid or 0, second.pid or 0]
            await second.stop()
            await second.stop()  # a second stop is harmless
            client = TritonClient(first.grpc_url)
            assert await answers(client)
            await client.close()
        return sessions

    for session in asyncio.run(scenario()):
        assert session_members(session) == []


def run_module(repository: Path, log: Path, *arguments: str, before: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "service.embedded", "--repository", str(repository), *arguments],
            stdout=out,
            stderr=out,
            cwd=log.parent,
        )


def wait_for_log(process: "subprocess.Popen[bytes]", log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_nothing_survives_a_killed_supervisor(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = run_module(repository, log, "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--exit-timeout-s=3")
    try:
        wait_for_log(process, log, "is ready")
        session = child_of(process.pid)
        assert processes(session, STUB)
        assert processes(session, SERVER)
    finally:
        process.kill()
        process.wait()
    assert asyncio.run(eventually(lambda: session_members(session) == [], 10)) < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_module_drains_on_a_signal(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    process = run_module(repository, log, "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--exit-timeout-s=3")
    try:
        wait_for_log(process, log, "is ready")
        session = child_of(process.pid)
        process.send_signal(number)
        assert process.wait(15) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert session_members(session) == []
    assert "Traceback" not in log.read_text()


def test_as_process_1_it_collects_orphans_and_heals(repository: Path, tmp_path: Path) -> None:
    """As in a container: nobody else collects the processes that a killed guard leaves to process 1."""
    probe = subprocess.run(["unshare", "-pf", "--mount-proc", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no right to make a process namespace")
    log = tmp_path / "log"
    in_namespace = ("unshare", "-pf", "--mount-proc", "--kill-child")
    process = run_module(
        repository, log, "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--exit-timeout-s=0", before=in_namespace
    )
    try:
        wait_for_log(process, log, "is ready")
        first = child_of(process.pid)
        os.kill(child_of(first), signal.SIGKILL)
        wait_for_log(process, log, "answers again")
        children = Path(f"/proc/{first}/task/{first}/children")
        asyncio.run(eventually(lambda: len(children.read_text().split()) == 1, 10))
        assert processes(child_of(first), SERVER)
        os.kill(first, signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()


def test_the_module_says_what_is_wrong(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = run_module(tmp_path / "nowhere", log, "--grpc-port=0", "--http-port=0", "--metrics-port=0")
    assert process.wait(30) == 1
    assert "nowhere" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_backends_temporary_folder_is_the_launches_own_and_goes_with_it(repository: Path, tmp_path: Path) -> None:
    """Killed all at once, guard too, a launch can remove nothing: the next start does."""
    log = tmp_path / "log"
    process = run_module(repository, log, "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--exit-timeout-s=0")
    try:
        wait_for_log(process, log, "is ready")
        session = child_of(process.pid)
        [lock] = [path for path in shared_memory(session) if path.name.endswith("_lock")]
        directory = Path(tempfile.gettempdir(), lock.name.removesuffix("_lock"))
        assert list(directory.glob("environments_*")), "the backend was built anew, and has its folder elsewhere"
        assert directory.name not in remove_stale()
    finally:
        everything = [process.pid, session, *session_members(session)]
        for pid in everything:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # the guard must not see the others go
        for pid in everything:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    asyncio.run(eventually(lambda: session_members(session) == [], 10))
    assert directory.exists()

    async def next_start() -> None:
        async with Supervisor(fast(repository)):
            assert not directory.exists()

    asyncio.run(next_start())


HOLDER = """
import fcntl, os, sys, threading, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
held = bytearray(os.urandom(1 << 20) * 400)  # takes a while to free
threading.Thread(target=time.sleep, args=(100,)).start()
print("ready", flush=True)
"""


def test_a_killed_process_is_a_member_until_its_last_thread_has_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(5):
        command = [sys.executable, "-c", HOLDER, str(lock)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
            while session_members(process.pid):
                pass
            descriptor = os.open(lock, os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)


def test_stale_shared_memory_goes_at_the_next_start(repository: Path) -> None:
    stale, lock = shm.claim_prefix()
    (shm.DIRECTORY / f"{stale}region").write_bytes(b"left by a killed server")
    os.close(lock)
    live, live_lock = shm.claim_prefix()
    (shm.DIRECTORY / f"{live}region").write_bytes(b"of a server that runs")
    try:

        async def scenario() -> None:
            async with Supervisor(fast(repository)):
                assert list(shm.DIRECTORY.glob(f"{stale}*")) == []
                assert len(list(shm.DIRECTORY.glob(f"{live}*"))) == 2

        asyncio.run(scenario())
    finally:
        os.close(live_lock)
        assert set(shm.remove(live)) == {f"{live}region", f"{live}lock"}


def test_a_broken_network_is_told_at_start(tmp_path: Path) -> None:
    broken = make_repository(tmp_path / "repository")
    (broken / "focus_on_depth" / "1" / "model.onnx").write_bytes(b"not a network")

    async def scenario() -> None:
        with pytest.raises(TritonStartError, match="ended at start") as caught:
            await Supervisor(fast(broken)).start()
        assert any("focus_on_depth" in line for line in caught.value.log_lines)
        assert all(len(line) < 5000 for line in caught.value.log_lines)

    asyncio.run(scenario())


def test_a_silent_server_is_told_at_start(repository: Path) -> None:
    async def scenario() -> None:
        settings = EmbeddedSettings(repository, start_timeout_s=0.2, exit_timeout_s=0)
        with pytest.raises(TritonStartError, match="did not answer within"):
            await Supervisor(settings).start()

    asyncio.run(scenario())


def test_a_port_taken_in_between_is_replaced(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tried: list[Ports] = []

        def pick(settings: EmbeddedSettings) -> Ports:
            ports = pick_ports(settings)
            tried.append(Ports(taken.getsockname()[1], ports.http, ports.metrics) if not tried else ports)
            return tried[-1]

        async def scenario() -> None:
            async with Supervisor(fast(repository), pick=pick) as supervisor:
                assert supervisor.ports == tried[1]

        asyncio.run(scenario())


@pytest.mark.parametrize("listener", ["grpc_port", "http_port", "metrics_port"])
def test_a_fixed_port_in_use_is_told(repository: Path, listener: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = EmbeddedSettings(repository, exit_timeout_s=0, **{listener: taken.getsockname()[1]})

        async def scenario() -> None:
            with pytest.raises(TritonStartError):
                await Supervisor(settings).start()

        asyncio.run(scenario())


def test_a_metrics_port_in_use_is_told_however_soon_inference_answers(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton says that its metrics listen some milliseconds before it finds that they cannot."""
    monkeypatch.setattr(supervisor, "_START_POLL_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = EmbeddedSettings(repository, canaries=(), exit_timeout_s=0, metrics_port=port)

        async def scenario() -> None:
            with pytest.raises(TritonStartError, match="in use"):
                await Supervisor(settings).start()

        asyncio.run(scenario())


def test_a_model_that_is_not_loaded_is_unavailable_not_unknown(repository: Path) -> None:
    async def scenario() -> None:
        settings = EmbeddedSettings(repository, models=("focus_on_depth",), exit_timeout_s=0)
        async with Supervisor(settings) as supervisor:
            client = TritonClient(supervisor.grpc_url)
            with pytest.raises(ModelUnavailable):
                await client.infer("focus", noise((64, 64)), timeout_s=3.0)
            assert [entry.ready for entry in await client.served_models()] == [True, False]
            admin = TritonClient(supervisor.grpc_url, admin=supervisor.admin)
            await admin.load("focus")
            assert await answers(client)
            await admin.close()
            await client.close()

    asyncio.run(scenario())
