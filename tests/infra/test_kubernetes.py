"""The manifests against Kubernetes' schemas and against each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mirnet.config import Settings

Manifest = dict[str, Any]
SETTINGS = {f"MIRNET_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def kustomization(root: Path) -> Manifest:
    path = root / "infra/kubernetes/base/kustomization.yaml"
    loaded: Manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template, wherever it lies: Deployments and Ray's own kinds."""

    def below(where: str, node: object) -> Iterator[tuple[str, Manifest]]:
        if isinstance(node, dict):
            if "template" in node and "spec" in node["template"]:
                yield where, node["template"]["spec"]
            for key, value in node.items():
                yield from below(f"{where}.{key}", value)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from below(f"{where}[{number}]", value)

    for manifest in manifests:
        yield from below(f"{manifest['kind']} {manifest['metadata']['name']}", manifest)


def test_objects_fit_the_schemas_of_kubernetes(manifests: list[Manifest]) -> None:
    checked = [m for m in manifests if not m["apiVersion"].startswith("ray.io/")]
    assert len(checked) > 15
    for manifest in checked:
        kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_pods_of_ray_fit_the_schema_of_a_pod(manifests: list[Manifest]) -> None:
    found = list(pods([m for m in manifests if m["apiVersion"].startswith("ray.io/")]))
    assert len(found) == 4
    for where, spec in found:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        shm = [v for v in spec["volumes"] if v["name"] == "shm"]
        assert shm[0]["emptyDir"]["medium"] == "Memory", where


def test_a_wrong_field_would_be_found(manifests: list[Manifest]) -> None:
    service = next(m for m in manifests if m["kind"] == "Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service | {"spec": {"prots": []}}, "1.33", strict=True)


def test_containers_have_no_rights_and_have_limits(manifests: list[Manifest]) -> None:
    for where, spec in pods(manifests):
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True, where
            assert rights["allowPrivilegeEscalation"] is False, where
            assert rights["capabilities"] == {"drop": ["ALL"]}, where
            assert "memory" in container["resources"]["limits"], where


def test_secrets_and_accounts_that_pods_name_exist(root: Path, manifests: list[Manifest]) -> None:
    example = (root / "infra/kubernetes/secrets.example.yaml").read_text(encoding="utf-8")
    keys = {
        (secret["metadata"]["name"], key)
        for secret in yaml.safe_load_all(example)
        for key in secret["stringData"]
    }
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    used = set()
    for where, spec in pods(manifests):
        assert spec["serviceAccountName"] in accounts, where
        for variable in spec["containers"][0].get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                used.add((reference["name"], reference["key"]))
            else:
                assert "PASSWORD" not in variable["name"], where
                assert "TOKEN" not in variable["name"], where
        mounted = {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
        used |= {(name, key) for name, key in keys if name in mounted}
        assert mounted <= {name for name, _ in keys}, where
    pool = json.loads((root / "infra/kubernetes/work-pool.json").read_text(encoding="utf-8"))
    default = pool["variables"]["properties"]["keys_secret"]["default"]
    used |= {(name, key) for name, key in keys if name == default}
    assert used == keys


def test_only_flows_run_under_the_account_of_flows(manifests: list[Manifest]) -> None:
    """An account may do all that its role of infra/terraform may: a server has its own."""
    owners = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]["serviceAccountName"]
        for m in manifests
        if m["kind"] == "Deployment"
    }
    assert owners == {name: name for name in ("mlflow", "prefect-server", "prefect-worker")}


def test_volumes_and_claims_exist(manifests: list[Manifest]) -> None:
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    for where, spec in pods(manifests):
        names = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= names, where
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, where


def test_pods_write_where_the_image_writes(root: Path, manifests: list[Manifest]) -> None:
    """Its root is read-only: home is a writable folder, and nothing else is mounted for a home."""
    dockerfile = (root / "infra/docker/Dockerfile").read_text("utf-8")
    (home,) = re.findall(r"^ENV HOME=(\S+)", dockerfile, re.M)
    pool = json.loads((root / "infra/kubernetes/work-pool.json").read_text("utf-8"))
    job = pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    for where, spec in [*pods(manifests), ("work-pool.json", job)]:
        for container in spec["containers"]:
            mounts = container["volumeMounts"]
            writable = {m["mountPath"] for m in mounts if not m.get("readOnly")}
            assert home in writable, where
            assert writable <= {home, "/var/lib/mirnet", "/dev/shm"}, where


def test_settings_exist_and_name_services_that_listen(
    manifests: list[Manifest], kustomization: Manifest
) -> None:
    ports = {
        m["metadata"]["name"]: {p["port"] for p in m["spec"]["ports"]}
        for m in manifests
        if m["kind"] == "Service"
    }
    literals = dict(
        entry.split("=", 1) for entry in kustomization["configMapGenerator"][0]["literals"]
    )
    assert {name for name in literals if name.startswith("MIRNET_")} <= SETTINGS
    urls = [match for v in literals.values() if (match := re.match(r"http://([\w-]+):(\d+)", v))]
    assert len(urls) == 2
    for match in urls:
        assert int(match[2]) in ports[match[1]]


def test_policies_select_pods_that_exist(manifests: list[Manifest]) -> None:
    names = {m["metadata"]["name"] for m in manifests if m["kind"] == "Deployment"}
    for manifest in manifests:
        if manifest["kind"] not in ("NetworkPolicy", "PodDisruptionBudget", "Service"):
            continue
        text = yaml.safe_dump(manifest["spec"])
        for name in re.findall(r"app\.kubernetes\.io/name: (\S+)", text):
            assert name in names, manifest["metadata"]["name"]


def test_every_server_lets_its_port_in(manifests: list[Manifest]) -> None:
    services = {
        m["metadata"]["name"]: m["spec"]["ports"][0]["port"]
        for m in manifests
        if m["kind"] == "Service"
    }
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    assert policies["deny-all"]["policyTypes"] == ["Ingress", "Egress"]
    for name, port in services.items():
        allowed = {p["port"] for rule in policies[name]["ingress"] for p in rule["ports"]}
        assert allowed == {port}


def test_versions_are_those_of_the_lock(
    root: Path, manifests: list[Manifest], kustomization: Manifest, lock: dict[str, str]
) -> None:
    clusters = [m for m in manifests if m["kind"] == "RayCluster"]
    jobs = [m for m in manifests if m["kind"] == "RayJob"]
    versions = [m["spec"]["rayVersion"] for m in clusters]
    versions += [m["spec"]["rayClusterSpec"]["rayVersion"] for m in jobs]
    assert versions == [lock["ray"]] * 2
    project = re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text("utf-8"), re.M)
    assert project is not None
    assert kustomization["images"][0]["newTag"].startswith(project[1])


def test_gpus_and_spot_machines_are_asked_for(manifests: list[Manifest]) -> None:
    job = next(m for m in manifests if m["kind"] == "RayJob")
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert group["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"nvidia.com/gpu", "mirnet/spot"} == {t["key"] for t in group["tolerations"]}


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_kustomize_renders(root: Path, overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here")
    done = subprocess.run(
        [kubectl, "kustomize", root / "infra/kubernetes" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    images = {c["image"] for _, spec in pods(rendered) for c in spec["containers"]}
    expected = {"mirnet:0.2.0-cpu"} | ({"mirnet:0.2.0-gpu"} if overlay == "gpu" else set())
    assert images == expected


def test_who_logs_in_to_mlflow_has_an_account(
    manifests: list[Manifest], kustomization: Manifest
) -> None:
    job = next(m for m in manifests if m["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][-1] == "mirnet.stack.mlflow_user"
    literals = kustomization["configMapGenerator"][0]["literals"]
    assert "MLFLOW_TRACKING_USERNAME=pipeline" in literals
    given = {variable["name"] for variable in container["env"]}
    assert given == {"MLFLOW_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD"}
