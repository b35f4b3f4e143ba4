"""The pod of each flow run, rendered by Prefect's own worker from our template and deployments."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect_kubernetes.settings import KubernetesSettings
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from flows.serve import load_flow
from mirnet.config import Settings

Manifest = dict[str, Any]
ROOT = Path(__file__).parents[2]
SETTINGS = {f"MIRNET_{name.upper()}" for name in Settings.model_fields}


def entries() -> list[Manifest]:
    loaded = yaml.safe_load((ROOT / "infra/kubernetes/prefect.yaml").read_text("utf-8"))
    return cast(list[Manifest], loaded["deployments"])


@pytest.fixture(scope="module")
def template(root: Path) -> Manifest:
    loaded: Manifest = json.loads((root / "infra/kubernetes/work-pool.json").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def jobs(template: Manifest) -> dict[str, Manifest]:
    """Flow -> the job that the worker would send to Kubernetes."""
    found = {}
    updates = {
        PREFECT_API_URL: "http://prefect-server:4200/api",
        PREFECT_API_AUTH_STRING: "admin:planted",
    }
    with temporary_settings(updates):
        for entry in entries():
            values = entry["work_pool"]["job_variables"]
            configuration = asyncio.run(
                KubernetesWorkerJobConfiguration.from_template_and_values(template, values)
            )
            run = FlowRun(flow_id=uuid4(), name="nimble-otter")
            pool = WorkPool(name="mirnet-kubernetes", type="kubernetes", default_queue_id=uuid4())
            configuration.prepare_for_flow_run(run, work_pool=pool)
            found[load_flow(entry["entrypoint"]).name] = configuration.job_manifest
    assert set(found) == {"retrain", "enhance", "monitor"}
    return found


def pod(job: Manifest) -> Manifest:
    return cast(Manifest, job["spec"]["template"]["spec"])


def test_variables_are_known_to_the_template(template: Manifest) -> None:
    known = template["variables"]["properties"]
    for entry in entries():
        assert set(entry["work_pool"]["job_variables"]) <= set(known)
    assert all(variable["description"] for variable in known.values())


def test_jobs_fit_the_schema_of_kubernetes(jobs: dict[str, Manifest]) -> None:
    for job in jobs.values():
        for misplaced in ("parallelism", "completions"):  # Prefect asks for them in the pod
            assert pod(job).pop(misplaced) == 1
        kubernetes_validate.validate(job, "1.33", strict=True)
        assert "{{" not in json.dumps(job)


def test_pods_are_let_in_where_restricted_pods_are_enforced(
    jobs: dict[str, Manifest], manifests: list[Manifest]
) -> None:
    space = next(m for m in manifests if m["kind"] == "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for job in jobs.values():
        rights = pod(job)["securityContext"]
        assert rights["runAsNonRoot"] is True
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod(job)["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_the_training_has_a_card(jobs: dict[str, Manifest]) -> None:
    cards = {
        name: pod(job)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, job in jobs.items()
    }
    assert cards == {"retrain": 1, "enhance": None, "monitor": None}
    assert pod(jobs["retrain"])["containers"][0]["image"].endswith("-gpu")
    assert pod(jobs["retrain"])["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_what_pods_refer_to_exists(
    root: Path, jobs: dict[str, Manifest], manifests: list[Manifest]
) -> None:
    names = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    text = (root / "infra/kubernetes/secrets.example.yaml").read_text("utf-8")
    secrets = {s["metadata"]["name"]: set(s["stringData"]) for s in yaml.safe_load_all(text)}
    kustomization = yaml.safe_load(
        (root / "infra/kubernetes/base/kustomization.yaml").read_text("utf-8")
    )
    maps = {entry["name"]: entry for entry in kustomization["configMapGenerator"]}
    for job in jobs.values():
        spec, (container,) = pod(job), pod(job)["containers"]
        assert job["metadata"]["namespace"] == kustomization["namespace"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}
        claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"][-1:]]
        assert ("PersistentVolumeClaim", claims[0]) in names
        (source,) = container["envFrom"]
        # a hash in the name of the map would be known to kustomize alone
        assert maps[source["configMapRef"]["name"]]["options"]["disableNameSuffixHash"] is True
        referred = [v["valueFrom"]["secretKeyRef"] for v in container["env"] if "valueFrom" in v]
        assert {r["key"] for r in referred} == {"pipeline-password", "token"}
        assert all(r["key"] in secrets[r["name"]] for r in referred)
        ours = {v["name"] for v in container["env"] if v["name"].startswith("MIRNET_")}
        assert ours <= SETTINGS


def test_only_the_flow_that_promotes_has_the_private_key(
    root: Path, jobs: dict[str, Manifest]
) -> None:
    text = (root / "infra/kubernetes/secrets.example.yaml").read_text("utf-8")
    secrets = {s["metadata"]["name"]: set(s["stringData"]) for s in yaml.safe_load_all(text)}
    has = {
        name: secrets[volume["secret"]["secretName"]]
        for name, job in jobs.items()
        for volume in pod(job)["volumes"]
        if "secret" in volume
    }
    public = {"model-signing.pub"}
    assert has == {
        "retrain": {"model-signing.key", *public}, "enhance": public, "monitor": public
    }  # fmt: skip


def test_the_password_of_the_api_goes_by_reference(
    root: Path, manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker swaps it in each job if it knows the secret; else it stands there in clear."""
    worker = next(
        m
        for m in manifests
        if m["kind"] == "Deployment" and m["metadata"]["name"] == "prefect-worker"
    )
    variables = worker["spec"]["template"]["spec"]["containers"][0]["env"]
    for variable in variables:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    told = KubernetesSettings().worker
    text = (root / "infra/kubernetes/secrets.example.yaml").read_text("utf-8")
    secrets = {s["metadata"]["name"]: set(s["stringData"]) for s in yaml.safe_load_all(text)}
    assert told.api_auth_string_secret_name is not None
    assert told.api_auth_string_secret_key in secrets[told.api_auth_string_secret_name]


def test_flow_runs_may_call_the_servers(
    jobs: dict[str, Manifest], manifests: list[Manifest]
) -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    for job in jobs.values():
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert labels["mirnet/role"] == "flow-run"
        for server in ("prefect-server", "mlflow", "ray"):
            rules = [rule for entry in policies[server]["ingress"] for rule in entry["from"]]
            allowed = [
                rule["podSelector"]["matchLabels"] for rule in rules if "podSelector" in rule
            ]
            assert any(wanted.items() <= labels.items() for wanted in allowed), server
