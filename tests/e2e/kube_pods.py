"""The pods of k8s/base really run: two Tritons and a gateway, a photo through them, one lost, all stopped.

    tests/e2e/kube-test [--photo FILE --out FOLDER]

Images are built from docker/ by the Docker engine and handed to podman. One line per step with its seconds; at the
first failure the pods' logs follow, and everything is taken down all the same. `--photo` sends a photo of yours too and
leaves its depth, matte and refocused picture in `--out`.
"""

import argparse
import copy
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from engine import ROOT, CommandError, Skip, engine, run
from pods import Pod, Podman
from stack import TAG, Caller, photo, send_photo
from steps import check, end_by_signals, handle_signals, step, wait_for

sys.path.insert(0, str(ROOT / "tests/support"))
from manifests import rendered

IMAGES = {
    "depthlens-gateway": ("docker/gateway.Dockerfile", "."),
    "depthlens-triton": ("docker/triton.Dockerfile", "."),
    "depthlens-models": ("docker/models.Dockerfile", "model_repository"),
}
SECRET = "depthlens=a-secret-of-the-test\n"
TOTAL_TIMEOUT_S = 2400
BUILD_TIMEOUT_S = 1200
HEALING_S = 180.0
"""10 s on a machine that is not busy. The supervisor gives a load 60 s, and then starts the whole server anew."""
PACE_S = 0.5
"""Between photos: what is shown is that none is lost, not how many two processors bear."""


class Flow:
    """Photos one after the other in a thread, until the end of the `with`; counts those that were not answered 200."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.failed: list[str] = []

    def __enter__(self) -> "Flow":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                answer = self._caller.request("POST", "/depth?size=native", photo())
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
                continue
            if answer.status == 200:
                self.answered += 1
            else:
                self.failed.append(f"{answer.status} {answer.body[:200]!r}")
            self._ended.wait(PACE_S)


def deployment(manifests: list[dict], name: str) -> dict:
    return next(each for each in manifests if (each["kind"], each["metadata"]["name"]) == ("Deployment", name))


def wrong_model(podman: Podman, manifests: list[dict]) -> str:
    """A store that holds another file than the deployment names: no Triton may start on it."""
    changed = copy.deepcopy(manifests)
    (store,) = [each["data"] for each in changed if each["kind"] == "ConfigMap" and "models.sha256" in each["data"]]
    digest = re.search(r"^(.{64})  focus_on_depth/1/model.onnx$", store["models.sha256"], re.MULTILINE)[1]
    store["models.sha256"] = store["models.sha256"].replace(digest, digest[::-1])
    with suppress(CommandError):
        podman.play(changed, deployment(manifests, "depthlens-triton"), 9, names={}, secret=SECRET)
    running = [
        line
        for line in podman("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
        if "depthlens-triton-9-triton" in line
    ]
    check(all("Created" in line for line in running), f"started on files that nobody named: {running}")
    return "; ".join(line for log in podman.logs() for line in log.splitlines() if line.startswith("model store: "))


def check_confinement(podman: Podman, pods: list[Pod]) -> None:
    """What the kernel says of process 1, and where it can write."""
    for pod in pods:
        writable = {mount["mountPath"] for mount in pod.main["volumeMounts"] if not mount.get("readOnly")}
        program = f"""
import os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
assert status["Uid"].split() == ["10001"] * 4 and status["Gid"].split() == ["10001"] * 4, status
assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0, status
assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status
assert not pathlib.Path("/var/run/secrets/kubernetes.io").exists()
for folder in ("/", "/etc", "/opt/venv", "/opt/depthlens", "/models"):
    try:
        pathlib.Path(folder, "probe").touch()
    except OSError:
        continue
    raise SystemExit(f"{{folder}} is writable")
for folder in {sorted(writable)!r}:
    pathlib.Path(folder, "probe").touch()
    pathlib.Path(folder, "probe").unlink()
links = [name for name in os.environ if name.startswith("DEPTHLENS_") and os.environ[name].startswith("tcp://")]
assert not links, links
"""
        podman.python(pod, program)


def model_processes(podman: Podman, pod: Pod, *, kill: bool = False) -> set[str]:
    """Process numbers of the models in a Triton pod; `kill` ends them."""
    program = f"""
import contextlib, os, pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        if (folder / "cmdline").read_bytes().split(b"\\0")[0].endswith(b"triton_python_backend_stub"):
            print(folder.name)
            {kill} and os.kill(int(folder.name), 9)
"""
    return set(podman.python(pod, program).split())


def lost_model(podman: Podman, pod: Pod, flow: Flow) -> Iterator[str]:
    """The network's process of one Triton is killed: the other one answers, the supervisor heals it."""
    killed = model_processes(podman, pod, kill=True)
    check(bool(killed), "no process of a model to kill")

    def healed() -> bool:
        return bool(model_processes(podman, pod) - killed) and podman.probe(pod, "readinessProbe")

    yield f"ready again after {wait_for(healed, HEALING_S, 'healing'):.1f} s"
    check(podman.probe(pod, "livenessProbe"), "alive no more")
    yield f"{flow.answered} requests answered, {len(flow.failed)} lost"
    check(not flow.failed, f"requests failed: {flow.failed[:3]}")


def drained(podman: Podman, gateway: Pod, caller: Caller) -> Iterator[str]:
    """Requests all through preStop, and one in flight at SIGTERM: answered."""
    answers: list[int] = []

    def ask() -> None:
        until = time.monotonic() + 9
        while time.monotonic() < until:
            answers.append(caller.request("POST", "/focus?rx=0.5&ry=0.5&mode=plane", photo()).status)

    thread = threading.Thread(target=ask)
    thread.start()
    took = podman.stop(gateway)
    thread.join()
    check(len(answers) > 0 and set(answers) == {200}, f"while it stopped: {answers}")
    yield f"gateway {took:.1f} s, {len(answers)} requests of that time answered"


def exercise(podman: Podman, docker: dict[str, str], own: Path | None, out: Path) -> None:
    manifests = rendered("base")
    with step("images are built"):
        for name, (dockerfile, context) in IMAGES.items():
            command = (
                "docker",
                "build",
                "-q",
                "-f",
                str(ROOT / dockerfile),
                "-t",
                f"{name}:{TAG}",
                str(ROOT / context),
            )
            run(*command, timeout_s=BUILD_TIMEOUT_S, env=docker)
    with step("podman has them") as details:
        details += [podman.load(docker, f"{name}:{TAG}") for name in IMAGES]
    with step("a wrong file: Triton does not start") as details:
        details.append(wrong_model(podman, manifests))
        check("SHA-256 is" in details[0], f"the init container says {details}")
    with step("Tritons: init containers, startup, readiness, liveness") as details:
        template = deployment(manifests, "depthlens-triton")
        tritons = [podman.play(manifests, template, number, names={}, secret=SECRET) for number in range(2)]
        details += [podman.until_ready(pod) for pod in tritons]
    with step("gateway: startup, readiness, liveness") as details:
        names = {"depthlens-triton": [pod.address for pod in tritons]}
        template = deployment(manifests, "depthlens-gateway")
        gateway = podman.play(manifests, template, 0, names=names, secret=SECRET)
        details.append(podman.until_ready(gateway))
        check("no key to the model control" not in podman("logs", gateway.container), "the gateway has no key")
    with step("confined as the manifests say"):
        check_confinement(podman, [*tritons, gateway])
    caller = Caller(gateway.address, gateway.main["ports"][0]["containerPort"])
    with step("photo: depth, mask, refocused"):
        send_photo(caller)
    if own is not None:
        with step(f"photo: {own}"):
            out.mkdir(parents=True, exist_ok=True)
            for path, name in (
                ("/depth", "depth.png"),
                ("/segmentation", "person.png"),
                ("/focus?rx=0.5&ry=0.5", "focus.jpg"),
            ):
                answer = caller.request("POST", path, own.read_bytes())
                check(answer.status == 200, f"{path} answers {answer.status}: {answer.body[:300]!r}")
                (out / name).write_bytes(answer.body)
    with step("one Triton's model killed while photos come") as details, Flow(caller) as flow:
        details += lost_model(podman, tritons[0], flow)
    with step("one Triton stopped as the kubelet does while photos come") as details:
        with Flow(caller) as flow:
            details.append(f"{podman.stop(tritons[0]):.1f} s")
            time.sleep(2)
        check(flow.answered > 0 and not flow.failed, f"{len(flow.failed)} requests failed: {flow.failed[:3]}")
        details.append(f"{flow.answered} requests answered, none lost")
    with step("gateway stopped as the kubelet does while photos come") as details:
        details += drained(podman, gateway, caller)
    with step("last Triton stopped") as details:
        details.append(f"{podman.stop(tritons[1]):.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="The pods of k8s/base under podman.")
    parser.add_argument("--photo", type=Path, help="a JPEG to send, too")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/kube-test", help="where its answers go")
    options = parser.parse_args()
    started = time.monotonic()
    end_by_signals(TOTAL_TIMEOUT_S)
    try:
        with Podman() as podman, engine() as docker:
            print(f"{time.monotonic() - started:7.1f} s  engine answers", flush=True)
            try:
                exercise(podman, docker, options.photo, options.out)
            except Exception:
                print(*podman.logs(), sep="\n", flush=True)
                raise
            finally:
                handle_signals(signal.SIG_IGN)  # an impatient second signal must not leave half of it behind
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
