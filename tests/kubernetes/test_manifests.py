"""The overlays of k8s/ as the API server would get them: valid, confined, consistent among themselves."""

import copy
import json
import re
from collections.abc import Iterator

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import K8S, OVERLAYS, ROOT, Manifest, Manifests, rendered

from service.replicas import RESOLVE_PERIOD_S
from service.settings import Settings

KUBERNETES = ("1.33", "1.37")
SCHEMAS = {
    f"{schema['properties']['apiVersion']['const']} {schema['properties']['kind']['const']}": schema
    for schema in (json.loads(path.read_text()) for path in (K8S.parent / "tests/kubernetes/schemas").glob("*.json"))
}
RULES = ROOT / "docker/monitoring/rules"
PROMETHEUS_RULE = K8S / "components/monitoring/prometheus-rule.yaml"
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def validate(manifest: Manifest, version: str) -> None:
    schema = SCHEMAS.get(f"{manifest['apiVersion']} {manifest['kind']}")
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(manifest)
    else:
        # An unknown kind is an error too, not the warning that the command line makes of it.
        kubernetes_validate.validate(manifest, version, strict=True)


def one(manifests: Manifests, kind: str, name: str) -> Manifest:
    found = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def kinds(manifests: Manifests, kind: str) -> Manifests:
    return [each for each in manifests if each["kind"] == kind]


def pod(manifests: Manifests, name: str) -> dict:
    return one(manifests, "Deployment", name)["spec"]["template"]["spec"]


def containers(manifests: Manifests) -> Iterator[tuple[dict, dict]]:
    """Every container with its pod."""
    for deployment in kinds(manifests, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield spec, container


@pytest.mark.parametrize("version", KUBERNETES)
def test_valid(overlay: Manifests, version: str) -> None:
    for manifest in overlay:
        validate(manifest, version)


def test_a_misspelt_field_is_refused(cpu: Manifests) -> None:
    """Of every kind that is sent, at the top of its spec: the control of the test above."""
    refused = set()
    for manifest in cpu:
        wrong = copy.deepcopy(manifest)
        (wrong["spec"] if "spec" in wrong else wrong)["speling"] = 1
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(wrong, KUBERNETES[-1])
        refused.add(manifest["kind"])
    assert {"Deployment", "Service", "ScaledObject", "ServiceMonitor", "PrometheusRule", "NetworkPolicy"} <= refused


def test_all_of_it_is_in_the_namespace(overlay: Manifests) -> None:
    for manifest in overlay:
        expected = None if manifest["kind"] == "Namespace" else "depthlens"
        assert manifest["metadata"].get("namespace") == expected, manifest["metadata"]["name"]
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "depthlens"


def test_containers_are_confined(overlay: Manifests) -> None:
    for spec, container in containers(overlay):
        assert container["securityContext"] == RESTRICTED
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        # DEPTHLENS_GATEWAY_PORT=tcp://... would come beside the settings of the same prefix.
        assert spec["enableServiceLinks"] is False
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_references_hold(overlay: Manifests) -> None:
    maps = {each["metadata"]["name"] for each in kinds(overlay, "ConfigMap")}
    accounts = {each["metadata"]["name"] for each in kinds(overlay, "ServiceAccount")}
    deployments = {each["metadata"]["name"]: each for each in kinds(overlay, "Deployment")}
    for spec, container in containers(overlay):
        assert spec["serviceAccountName"] in accounts
        assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= maps
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]}
        assert {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume} <= maps
    for service in kinds(overlay, "Service"):
        name = service["spec"]["selector"]["app.kubernetes.io/name"]
        ports = {port["name"] for port in pod(overlay, name)["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for budget in kinds(overlay, "PodDisruptionBudget"):
        template = deployments[budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]]
        scalers = kinds(overlay, "HorizontalPodAutoscaler") + kinds(overlay, "ScaledObject")
        least = template["spec"].get("replicas") or min(
            each["spec"].get("minReplicas") or each["spec"]["minReplicaCount"]
            for each in scalers
            if each["spec"]["scaleTargetRef"]["name"] == template["metadata"]["name"]
        )
        assert budget["spec"]["minAvailable"] < least, "its nodes could never be drained"


def test_what_is_scaled_has_no_number_of_its_own(cpu: Manifests) -> None:
    for scaler in (*kinds(cpu, "HorizontalPodAutoscaler"), *kinds(cpu, "ScaledObject")):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = one(cpu, target["kind"], target["name"])
        assert target["apiVersion"] == deployment["apiVersion"]
        assert "replicas" not in deployment["spec"]


def test_gateway_settings_are_settings(overlay: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    data = next(each["data"] for each in kinds(overlay, "ConfigMap") if "DEPTHLENS_TRITON_URL" in each["data"])
    assert {name.removeprefix("DEPTHLENS_").lower() for name in data} <= set(Settings.model_fields)
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    triton = one(overlay, "Service", "depthlens-triton")
    assert settings.triton_url == f"depthlens-triton:{triton['spec']['ports'][0]['port']}"
    # A name that gives every pod, not one address before them all; and one on which nothing translates ports.
    assert triton["spec"]["clusterIP"] == "None"
    assert all(
        {"name": port["targetPort"], "containerPort": port["port"]}
        in pod(overlay, "depthlens-triton")["containers"][0]["ports"]
        for port in triton["spec"]["ports"]
    )
    gateway = pod(overlay, "depthlens-gateway")
    slept = int(gateway["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert settings.shutdown_timeout_s > settings.request_timeout_s
    assert gateway["terminationGracePeriodSeconds"] > slept + settings.shutdown_timeout_s


def test_triton_outlives_its_name(overlay: Manifests) -> None:
    """Gateways still send to it until they have looked the name up again; then it finishes what it has."""
    spec = pod(overlay, "depthlens-triton")
    container = spec["containers"][0]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    name_server_remembers_s = 5
    assert slept >= RESOLVE_PERIOD_S + name_server_remembers_s
    (drain,) = [int(word.split("=")[1]) for word in container["args"] if word.startswith("--exit-timeout-s")]
    supervisor_s = 6
    assert spec["terminationGracePeriodSeconds"] >= slept + drain + supervisor_s


def test_probes(overlay: Manifests) -> None:
    gateway = pod(overlay, "depthlens-gateway")["containers"][0]
    paths = {probe: gateway[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {
        "startupProbe": "/health/live",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",  # on a Triton that is away no gateway must be restarted
    }
    triton = pod(overlay, "depthlens-triton")["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        # An inference: Triton's own readiness stays 200 after a model's process died.
        assert triton[probe]["exec"]["command"] == ["python3", "-I", "/opt/healthcheck/triton_health.py"]
        assert triton[probe]["timeoutSeconds"] > 4  # the script's own
    start = triton["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 180


def ingress(manifests: Manifests, target: str) -> set[tuple[str, str]]:
    """Who may reach which ports of the pods called `target`: (peer, port name)."""
    allowed = set()
    for policy in kinds(manifests, "NetworkPolicy"):
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        if labels.get("app.kubernetes.io/name") == target:
            for rule in policy["spec"].get("ingress", []):
                peers = [json.dumps(peer, sort_keys=True) for peer in rule.get("from", [])] or ["anybody"]
                allowed |= {(peer, str(port["port"])) for peer in peers for port in rule["ports"]}
    return allowed


def test_only_gateways_reach_triton(overlay: Manifests) -> None:
    gateways = json.dumps({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "depthlens-gateway"}}})
    monitoring = json.dumps({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})
    allowed = ingress(overlay, "depthlens-triton")
    assert (gateways, "grpc") in allowed
    assert allowed <= {(gateways, "grpc"), (monitoring, "metrics")}
    assert ((monitoring, "metrics") in allowed) == bool(kinds(overlay, "ServiceMonitor"))
    closed = one(overlay, "NetworkPolicy", "depthlens-nothing")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # Triton itself calls nobody.
    assert "egress" not in one(overlay, "NetworkPolicy", "depthlens-triton")["spec"]
    assert ingress(overlay, "depthlens-gateway") == {("anybody", "http")}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_released_images_have_tags(name: str) -> None:
    for _, container in containers(rendered(f"overlays/{name}")):
        assert re.fullmatch(r"depthlens-[a-z-]+:\d+(\.\d+)*", container["image"]), container["image"]


def test_the_gpu_overlay_starts_what_compose_starts(gpu: Manifests) -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.gpu.yaml").read_text())["services"]["triton"]["command"]
    container = pod(gpu, "depthlens-triton")["containers"][0]
    theirs = [*container["command"], *container["args"]]
    ours = [re.sub(r"\$\{DEPTHLENS_TRITON_CONFIG:-(\w+)\}", r"\1", word) for word in compose]
    assert theirs == [word.replace("${DEPTHLENS_TRITON_ADMIN}", "$(TRITON_ADMIN)") for word in ours]
    assert container["image"].startswith("depthlens-triton-gpu:")
    for amounts in container["resources"].values():
        assert amounts["nvidia.com/gpu"] == "1"


def test_shared_memory(overlay: Manifests) -> None:
    spec = pod(overlay, "depthlens-triton")
    (volume,) = [mount["name"] for mount in spec["containers"][0]["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    assert {"name": volume, "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in spec["volumes"]


def test_the_model_store_is_the_only_way_in(overlay: Manifests) -> None:
    spec = pod(overlay, "depthlens-triton")
    (init,) = spec["initContainers"]
    assert init["args"] == ["/etc/depthlens/model-store/models.sha256", "/models", "/store"]
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["/models"] == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert {"name": "models", "mountPath": "/store"} in init["volumeMounts"]


def test_rules_are_those_of_the_rule_files(update_golden: bool) -> None:
    """One place for each rule, docker/monitoring/rules; `pytest --update-golden tests/kubernetes` copies them."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    groups = [group for file in files for group in file["groups"]]
    if update_golden:
        manifest = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "depthlens"},
            "spec": {"groups": groups},
        }
        text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
        PROMETHEUS_RULE.write_text(
            f"# Made from docker/monitoring/rules by `pytest --update-golden tests/kubernetes`.\n{text}"
        )
    assert yaml.safe_load(PROMETHEUS_RULE.read_text())["spec"]["groups"] == groups


def test_jobs_are_called_as_the_rules_call_them(cpu: Manifests) -> None:
    """`jobLabel` takes the job's name from the Service's label."""
    jobs = set()
    for monitor in kinds(cpu, "ServiceMonitor"):
        service = one(cpu, "Service", monitor["metadata"]["name"])
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        jobs.add(service["metadata"]["labels"][monitor["spec"]["jobLabel"]])
    scraped = yaml.safe_load((ROOT / "docker/monitoring/prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {job["job_name"] for job in scraped}


def test_every_overlay_is_tested() -> None:
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(OVERLAYS)
