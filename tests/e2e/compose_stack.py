"""Brings docker/compose.yaml up for real, posts a photo through it, breaks it twice, sees it recover, takes it down.

    tests/e2e/compose-test

One line per step with its seconds; at the first failure the containers' logs follow, and everything is taken down
all the same. `DEPTHLENS_MODELS` names another model repository than the committed one.
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from engine import ROOT, CommandError, Skip, compose_command, engine
from stack import TAG, Answer, Stack, photo, send_photo
from steps import check, end_by_signals, handle_signals, step, wait_for

from service.contract import MODELS

IMAGES = ("depthlens-gateway", "depthlens-triton")
ANOTHER = "depth_another"
TOTAL_TIMEOUT_S = 1200
BUILD_TIMEOUT_S = 900
UP_TIMEOUT_S = 240
NOTICE_S = 5.0
"""Readiness has to turn 503 within this time."""
HEALING_S = 15.0
"""From the death of a model's process to its next answer: 5 s to notice, 10 s to heal."""
RECOVERY_S = 60.0


def check_images(stack: Stack) -> Iterator[str]:
    """The gateway holds no torch and no server; neither image holds a compiler or runs as root."""
    absent = {"depthlens-gateway": ("torch", "openvino", "pytriton", "pip"), "depthlens-triton": ("torch", "pip")}
    for image in IMAGES:
        program = f"""
import importlib.util, os, shutil
found = [name for name in {absent[image]!r} if importlib.util.find_spec(name)]
found += [tool for tool in ("gcc", "cc", "g++", "clang", "make", "ld") if shutil.which(tool)]
assert not found, f"must not be in the image: {{found}}"
assert os.getuid() == os.getgid() == 10001, "runs as another user"
import service
"""
        stack.python(image, program)
        megabytes = int(stack.docker("image", "inspect", "-f", "{{.Size}}", f"{image}:{TAG}")) / 1e6
        yield f"{image} {megabytes:.0f} MB"


def check_confinement(stack: Stack) -> None:
    """What the running containers are really allowed."""
    for service in ("gateway", "triton"):
        state = stack.inspect(service)
        host = state["HostConfig"]
        check(host["ReadonlyRootfs"], f"{service}: root is writable")
        check(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{service}: has capabilities")
        check(any("no-new-privileges" in option for option in host["SecurityOpt"]), f"{service}: can gain privileges")
        check(host["Memory"] > 0 and host["PidsLimit"] > 0, f"{service}: no limit of memory or processes")
        check(state["Config"]["User"] == "10001:10001", f"{service}: user is {state['Config']['User']!r}")
        published = [binding for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
        expected = [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}] if service == "gateway" else []
        check(published == expected, f"{service}: publishes {published}")
        program = """
import errno, pathlib
for folder in ("/", "/opt/depthlens", "/opt/venv", "/etc", "/models"):
    try:
        pathlib.Path(folder, "probe").touch()
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT), error
    else:
        raise SystemExit(f"{folder} is writable")
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"].strip() == "1", status
"""
        stack.docker("exec", stack.container(service), "python", "-c", program)


def until_ready(stack: Stack, status: int, timeout_s: float) -> float:
    """Seconds until readiness answers `status`."""
    return wait_for(lambda: stack.status("/health/ready") == status, timeout_s, f"readiness {status}")


def check_refusal(answer: Answer) -> None:
    """What is said while there is no Triton or no model."""
    check(answer.status == 503, f"{answer.status} instead of 503: {answer.body[:300]!r}")
    check(answer.headers.get("content-type", "").startswith("application/problem+json"), "503 is no problem+json")
    check(int(answer.headers.get("retry-after", "0")) >= 1, "503 without Retry-After")
    problem = json.loads(answer.body)
    check(problem["status"] == 503 and bool(problem["code"]), f"503 says {problem}")


def repository(folder: Path, source: Path) -> Path:
    """A copy of the model repository that Triton may read, with one network more."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.pt", "*.plan"))
    network = next(name for name, spec in MODELS.items() if spec.kind == "network")
    shutil.copytree(folder / network, folder / ANOTHER)
    config = (folder / network / "config.pbtxt").read_text().replace(f'"{network}"', f'"{ANOTHER}"')
    sizes = 'parameters { key: "depthlens_sizes" value { string_value: "320x320" } }'
    (folder / ANOTHER / "config.pbtxt").write_text(f"{config}\n{sizes}\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def listed(stack: Stack) -> set[str]:
    """Names in `GET /models`, which the gateway knows from Triton's index: it has the key to it."""
    return {model["name"] for model in json.loads(stack.request("GET", "/models").body)["models"]}


def outage(stack: Stack) -> Iterator[str]:
    """Triton is killed by the engine, which counts as a stop by hand: it stays away until somebody starts it."""
    triton = stack.container("triton")
    stack.docker("kill", "--signal", "KILL", triton)
    yield f"not ready after {until_ready(stack, 503, NOTICE_S):.1f} s"
    started = time.monotonic()
    check_refusal(stack.request("POST", "/depth", photo()))
    yield f"/depth 503 with Retry-After in {time.monotonic() - started:.2f} s"
    check(stack.status("/health/live") == 200, "the gateway is not live")
    time.sleep(3)
    check_refusal(stack.request("POST", "/depth", photo()))
    stack.docker("start", triton)
    yield f"ready {until_ready(stack, 200, RECOVERY_S):.1f} s after the start"


def crash(stack: Stack) -> Iterator[str]:
    """The main process of the Triton container dies by SIGKILL: the restart policy alone brings it back."""
    before = stack.inspect("triton")
    # From the engine's process namespace: inside its own, process 1 cannot be killed.
    program = f"import os; os.kill({before['State']['Pid']}, 9)"
    privileges = ("--pid", "host", "--network", "none", "--user", "0", "--cap-drop", "ALL", "--cap-add", "KILL")
    stack.docker("run", "--rm", *privileges, f"{IMAGES[0]}:{TAG}", "python", "-c", program)
    started = time.monotonic()
    refused = 0

    def recovered() -> bool:
        nonlocal refused
        answer = stack.request("POST", "/depth", photo())
        if answer.status != 200:
            check_refusal(answer)
            refused += 1
        after = stack.inspect("triton")
        return answer.status == 200 and after["RestartCount"] > before["RestartCount"] and after["State"]["Running"]

    wait_for(recovered, RECOVERY_S, "recovery by the restart policy")
    yield f"{refused} times 503, /depth 200 after {time.monotonic() - started:.1f} s"
    yield f"ready {until_ready(stack, 200, RECOVERY_S):.1f} s later"


def model_processes(stack: Stack, *, kill: bool = False) -> list[str]:
    """Process numbers of the models inside the Triton container; `kill` ends them."""
    program = f"""
import os, pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        command = (folder / "cmdline").read_bytes()
    except OSError:
        continue
    if command.split(b"\\0")[0].endswith(b"triton_python_backend_stub"):
        print(folder.name)
        {kill} and os.kill(int(folder.name), 9)
"""
    return stack.docker("exec", stack.container("triton"), "python", "-c", program).split()


def dead_model(stack: Stack) -> Iterator[str]:
    """The model's process dies, Triton itself lives on and calls itself ready: the supervisor heals.

    Now and then it does so before the gateway's next readiness inference, which then has nothing to notice.
    """
    killed = model_processes(stack, kill=True)
    check(bool(killed), "no process of a model to kill")
    started = time.monotonic()
    refused = 0

    def healed() -> bool:
        nonlocal refused
        answer = stack.request("POST", "/focus?rx=0.5&ry=0.5&mode=plane", photo())
        if answer.status != 200:
            check_refusal(answer)
            refused += 1
        return answer.status == 200 and bool(set(model_processes(stack)) - set(killed))

    wait_for(healed, HEALING_S, "healing")
    yield f"{refused} times 503, /focus 200 after {time.monotonic() - started:.1f} s"
    yield f"ready {until_ready(stack, 200, RECOVERY_S):.1f} s later"


def stop(stack: Stack) -> Iterator[str]:
    """SIGTERM ends both within their grace, by their own will."""
    for service in ("gateway", "triton"):
        started = time.monotonic()
        stack.compose("stop", service, timeout_s=90)
        yield f"{service} {time.monotonic() - started:.1f} s"
        status = stack.inspect(service)["State"]["ExitCode"]
        check(status == 0, f"{service} ended with status {status}")


def exercise(stack: Stack) -> None:
    with step("networks are there"):
        for name in (name for name, spec in MODELS.items() if spec.kind == "network"):
            found = list((stack.models / name).glob("[1-9]*/model.*"))
            check(bool(found), f"{stack.models} holds no network {name}; DEPTHLENS_MODELS can name another repository")
    with step("compose files are valid: CPU, monitoring, GPU"):
        stack.compose("config", "-q")
        stack.compose("--profile", "monitoring", "config", "-q")
        gpu = ("-f", str(ROOT / "docker/compose.gpu.yaml"))
        stack.compose(*gpu, "config", "-q", env={"DEPTHLENS_TRITON_ADMIN": "depthlens=secret"})
    with step("images are built"):
        stack.compose("build", timeout_s=BUILD_TIMEOUT_S)
    with step("no torch, no compilers, no root") as details:
        details += check_images(stack)
    with step("stack is up: Triton healthy, gateway started"):
        stack.compose("up", "-d", timeout_s=UP_TIMEOUT_S)
    with step("gateway is ready"):
        until_ready(stack, 200, RECOVERY_S)
    with step("read-only roots, no capabilities, one port on loopback"):
        check_confinement(stack)
    with step("photo: depth, mask, refocused"):
        send_photo(stack)
    with step("a network that nobody asked for is listed"):
        wait_for(lambda: ANOTHER in listed(stack), RECOVERY_S, f"{ANOTHER} in /models")
    with step("Triton container killed and started") as details:
        details += outage(stack)
    with step("photo again"):
        send_photo(stack)
    with step("Triton container crashed, restarted by the engine") as details:
        details += crash(stack)
    with step("photo again"):
        send_photo(stack)
    with step("model's process killed, healed by the supervisor") as details:
        details += dead_model(stack)
    with step("photo again"):
        send_photo(stack)
    with step("SIGTERM drains") as details:
        details += stop(stack)


def print_logs(stack: Stack) -> None:
    for command in (("ps",), ("logs", "--no-color", "--tail", "80")):
        try:
            print(stack.compose(*command), flush=True)
        except CommandError as error:
            print(error, flush=True)


def main() -> int:
    started = time.monotonic()
    end_by_signals(TOTAL_TIMEOUT_S)
    try:
        with tempfile.TemporaryDirectory(prefix="depthlens-e2e-") as folder, engine() as environment:
            Path(folder).chmod(0o755)
            source = Path(environment.get("DEPTHLENS_MODELS") or ROOT / "model_repository").resolve()
            models = repository(Path(folder, "models"), source)
            stack = Stack(environment, compose_command(environment), models)
            print(f"{time.monotonic() - started:7.1f} s  engine answers", flush=True)
            try:
                exercise(stack)
            except Exception:
                print_logs(stack)
                raise
            finally:
                handle_signals(signal.SIG_IGN)  # an impatient second signal must not leave half of it behind
                with step("everything taken down"):
                    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "30", timeout_s=120)
    except Skip as reason:
        print(f"SKIPPED: {reason}")
        return 0
    except (AssertionError, CommandError, OSError, HTTPException) as error:
        print(f"FAILED: {error}")
        return 1
    print(f"{time.monotonic() - started:7.1f} s  PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
