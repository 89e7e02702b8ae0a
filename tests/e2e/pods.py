"""Pods of the Kubernetes manifests, run by podman; what a kubelet does and podman 4 does not is done here.

`podman kube play` starts a Pod's init containers and containers with their users, capabilities, read-only roots,
limits, ConfigMaps and host aliases. It has no emptyDir of a size, a mode or in memory, no Secrets, no probes but one of
its own kind, no preStop and no headless Services. So volumes are directories and tmpfs mounts of this machine, as a
kubelet makes them, probes and preStop are taken from the manifest and run here, and a Service's name stands in the
pods' hosts file.
"""

import copy
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from engine import CommandError, Skip, run
from stack import TAG, Caller
from steps import check

_LIMITS = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
"""podman's own are more than a machine may allow that is a container itself."""


@dataclass(frozen=True)
class Pod:
    """A running pod with one container, and the manifest that it is of."""

    name: str
    address: str
    container: str
    spec: dict

    @property
    def main(self) -> dict:
        return self.spec["containers"][0]


class Podman:
    """podman, a network of its own and the volumes of the pods; a context manager that leaves nothing."""

    def __init__(self) -> None:
        missing = [name for name in ("podman", "catatonit", "kubectl") if shutil.which(name) is None]
        if missing:
            raise Skip(f"{', '.join(missing)} not installed")
        if os.geteuid() != 0:
            raise Skip("volumes in memory are mounted as a kubelet does it, which needs root")
        self._prefix = f"depthlens-kube-{os.getpid()}"
        self._stack = ExitStack()
        self._pods: list[str] = []

    def __enter__(self) -> "Podman":
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=self._prefix)))
        (self._directory / "containers.conf").write_text(_LIMITS)
        self._environment = os.environ | {"CONTAINERS_CONF": str(self._directory / "containers.conf")}
        self("network", "create", self._prefix)
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self._pods:
            subprocess.run(["podman", "pod", "rm", "-f", pod], capture_output=True, check=False)
        subprocess.run(["podman", "network", "rm", "-f", self._prefix], capture_output=True, check=False)
        self._stack.close()

    def __call__(self, *arguments: str, timeout_s: float = 60) -> str:
        return run("podman", *arguments, timeout_s=timeout_s, env=self._environment)

    def load(self, docker: dict[str, str], image: str) -> str:
        """Bring an image of the Docker engine over, unless podman has it; says how."""
        wanted = run("docker", "image", "inspect", "-f", "{{.Id}}", image, timeout_s=60, env=docker).strip()
        try:
            if self("image", "inspect", "-f", "{{.Id}}", f"localhost/{image}").strip() == wanted.removeprefix(
                "sha256:"
            ):
                return f"{image} there"
        except CommandError:
            pass
        archive = self._directory / "image.tar"
        run("docker", "save", "-o", str(archive), image, timeout_s=1200, env=docker)
        self("load", "-i", str(archive), timeout_s=1200)
        archive.unlink()
        return f"{image} loaded"

    def play(
        self, manifests: list[dict], deployment: dict, number: int, *, names: dict[str, list[str]], secret: str
    ) -> Pod:
        """Start one pod of a Deployment, its init containers first.

        Args:
            manifests: those it refers to.
            deployment: whose template it is of.
            number: which of its pods.
            names: what Services' names stand for.
            secret: content of the file in each Secret.

        Raises:
            CommandError: an init container or podman itself failed.
        """
        spec = copy.deepcopy(deployment["spec"]["template"]["spec"])
        name = f"{self._prefix}-{deployment['metadata']['name']}-{number}"
        self._pods.append(name)
        spec["restartPolicy"] = "Never"  # podman would start init containers anew after they ended well
        spec["hostAliases"] = [{"ip": ip, "hostnames": [host]} for host, addresses in names.items() for ip in addresses]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            container["image"] = f"localhost/{container['image'].split(':')[0]}:{TAG}"
            container["imagePullPolicy"] = "Never"
            container.pop("ports", None)  # podman would publish them on every address of this machine
            container.pop("livenessProbe", None)  # podman's own runs by systemd timers
        for volume in spec["volumes"]:
            self._host_volume(volume, self._directory / name / volume["name"], secret)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        maps = [each for each in manifests if each["kind"] == "ConfigMap"]
        file = self._directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all([*maps, pod]))
        self("kube", "play", "--network", self._prefix, str(file), timeout_s=180)
        main = deployment["spec"]["template"]["spec"]
        container = f"{name}-{main['containers'][0]['name']}"
        infra = self("pod", "inspect", "-f", "{{.InfraContainerID}}", name).strip()
        address = self("inspect", "-f", f'{{{{(index .NetworkSettings.Networks "{self._prefix}").IPAddress}}}}', infra)
        return Pod(name, address.strip(), container, main)

    def logs(self) -> Iterator[str]:
        for line in self("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines():
            name = line.split()[0]
            if name.startswith(self._prefix):
                yield f"== {line}\n{self('logs', '--tail', '60', name)}"

    def python(self, pod: Pod, program: str) -> str:
        return self("exec", pod.container, "python3", "-c", program)

    def probe(self, pod: Pod, kind: str) -> bool:
        """Run a container's probe once, as the kubelet would."""
        probe = pod.main[kind]
        timeout_s = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            try:
                self("exec", pod.container, *probe["exec"]["command"], timeout_s=timeout_s)
            except CommandError:
                return False
            return True
        ports = {port["name"]: port["containerPort"] for port in pod.main["ports"]}
        caller = Caller(pod.address, ports[probe["httpGet"]["port"]])
        return 200 <= caller.status(probe["httpGet"]["path"], timeout_s=timeout_s) < 400

    def until_ready(self, pod: Pod) -> str:
        """Startup, then readiness and liveness, each within what its probe allows; says how long the first took."""
        started = time.monotonic()
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = pod.main[kind]
            for _ in range(probe["failureThreshold"]):
                if self.probe(pod, kind):
                    break
                time.sleep(probe["periodSeconds"])
            else:
                raise AssertionError(f"{pod.name}: {kind} failed {probe['failureThreshold']} times")
            if kind == "startupProbe":
                took = f"{pod.name.removeprefix(self._prefix + '-')} started in {time.monotonic() - started:.1f} s"
        return took

    def stop(self, pod: Pod) -> float:
        """preStop, SIGTERM, and the rest of the grace; seconds it took. It has to end by itself, with status 0."""
        started = time.monotonic()
        self("exec", pod.container, *pod.main["lifecycle"]["preStop"]["exec"]["command"], timeout_s=60)
        left = pod.spec["terminationGracePeriodSeconds"] - (time.monotonic() - started)
        self("stop", "-t", str(int(left)), pod.container, timeout_s=left + 30)
        took = time.monotonic() - started
        status = self("inspect", "-f", "{{.State.ExitCode}}", pod.container).strip()
        check(status == "0", f"{pod.name} ended with status {status}")
        check(took < pod.spec["terminationGracePeriodSeconds"], f"{pod.name} took {took:.1f} s to end")
        return took

    def _host_volume(self, volume: dict, path: Path, secret: str) -> None:
        if "emptyDir" in volume:
            empty = volume.pop("emptyDir")
            path.mkdir(parents=True)
            path.chmod(0o777)
            if empty.get("medium") == "Memory":
                self._stack.enter_context(_memory(path, empty["sizeLimit"]))
        elif "secret" in volume:
            volume.pop("secret")
            path.mkdir(parents=True)
            (path / "admin").write_text(secret)
        else:
            return
        volume["hostPath"] = {"path": str(path), "type": "Directory"}


@contextmanager
def _memory(path: Path, size: str) -> Iterator[None]:
    options = f"size={size.replace('Mi', 'm').replace('Gi', 'g')},mode=0777,nosuid,nodev"
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path), timeout_s=20)
    try:
        yield
    finally:
        run("umount", "--lazy", str(path), timeout_s=20)
