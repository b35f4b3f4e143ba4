"""Terraform applied to a simulated AWS, and its roles put in force there.

Needs terraform and, since its registry is not everywhere in reach, a folder with the AWS provider
as ``terraform providers mirror`` lays it out, named by ``TERRAFORM_PLUGIN_DIR``. The simulation
(moto) evaluates the policies of roles for S3; it judges neither who may assume a role, nor the use
of a key, and takes the condition of a bucket's own policy for fulfilled.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.core.authorization import enable_iam_authentication
from moto.server import ThreadedMotoServer
from PIL import Image as Picture

from mirnet.batch.run import run_batch
from mirnet.config import Settings, child_environment, environment
from mirnet.errors import StorageError
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.places import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REGION = "eu-central-1"
PREFIX = "acme-lights"
_ISSUER = "oidc.example.com/id/1"
_VARIABLES = (
    f"-var=prefix={PREFIX}",
    f"-var=oidc_provider_arn=arn:aws:iam::123456789012:oidc-provider/{_ISSUER}",
    f"-var=oidc_provider_host={_ISSUER}",
)
# buckets as paths, not as host names, which the simulation does not have
_OVERRIDE = 'provider "aws" {\n  s3_use_path_style = true\n}\n'


@dataclass(frozen=True)
class Cloud:
    """The simulated AWS and the working copy that was applied to it."""

    url: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "owner",
            "AWS_SECRET_ACCESS_KEY": "owner",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "MIRNET_S3_ENDPOINT_URL": self.url,
        }

    def terraform(self, *arguments: str) -> str:
        variables = child_environment(**self.environment, CHECKPOINT_DISABLE="1", NO_PROXY="*")
        # the configuration of whoever runs this may name other places for providers
        variables.pop("TF_CLI_CONFIG_FILE", None)
        done = subprocess.run(
            ["terraform", f"-chdir={self.folder}", *arguments, "-no-color"],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def apply(self) -> str:
        return self.terraform("apply", "-auto-approve", "-input=false", *_VARIABLES)

    def outputs(self) -> dict[str, dict[str, str]]:
        found: dict[str, Any] = json.loads(self.terraform("output", "-json"))
        return {name: output["value"] for name, output in found.items()}

    def client(self, service: str) -> Any:
        with environment(**self.environment):
            session: Any = boto3.Session()
            return session.client(service, region_name=REGION)

    @contextmanager
    def as_role(self, role: str) -> Iterator[Settings]:
        """The credentials of a pod whose service account has this role; policies count."""
        session = self.client("sts").assume_role_with_web_identity(
            RoleArn=self.outputs()["role_arns"][role],
            RoleSessionName="test",
            WebIdentityToken="token-of-the-service-account",
        )["Credentials"]
        keys = {
            "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
            "AWS_SESSION_TOKEN": session["SessionToken"],
        }
        # the server runs in this process
        with enable_iam_authentication(), environment(**self.environment | keys):
            yield Settings(s3_endpoint_url=self.url, lease_s=5)


@pytest.fixture(scope="module")
def providers() -> Path:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    given = os.environ.get("TERRAFORM_PLUGIN_DIR")
    if not given:
        pytest.skip("TERRAFORM_PLUGIN_DIR names no folder with the AWS provider")
    return Path(given).resolve()


@pytest.fixture(scope="module")
def cloud(providers: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("terraform") / "copy"
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*")
    shutil.copytree(root / "infra/terraform", folder, ignore=ignored)
    (folder / "test_override.tf").write_text(_OVERRIDE, encoding="utf-8")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    made = Cloud("http://{}:{}".format(*server.get_host_and_port()), folder)
    try:
        made.terraform("init", "-input=false", f"-plugin-dir={providers}")
        yield made
    finally:
        server.stop()


@pytest.fixture(scope="module")
def applied(cloud: Cloud) -> Cloud:
    said = cloud.apply()
    assert re.search(r"Apply complete! Resources: [1-9]\d* added, 0 changed, 0 destroyed", said)
    return cloud


@pytest.fixture(scope="module")
def roles(applied: Cloud) -> Cloud:
    """Only policies of roles decide: to the simulation, TlsOnly forbids everything to everybody."""
    s3 = applied.client("s3")
    for name in applied.outputs()["buckets"].values():
        s3.delete_bucket_policy(Bucket=name)
    return applied


def test_a_second_apply_changes_nothing(applied: Cloud) -> None:
    said = applied.apply()
    assert "No changes. Your infrastructure matches the configuration." in said
    assert "Resources: 0 added, 0 changed, 0 destroyed" in said


def test_buckets_are_as_declared(applied: Cloud) -> None:
    s3 = applied.client("s3")
    buckets = applied.outputs()["buckets"]
    assert set(buckets.values()) == {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for purpose, name in buckets.items():
        assert name == f"{PREFIX}-{purpose}"
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
        blocked = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        assert len(blocked) == 4 and all(blocked.values())
        rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        (refused,) = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
        assert (refused["Effect"], refused["Sid"]) == ("Deny", "TlsOnly")
        expired = [
            rule["Expiration"]["Days"]
            for rule in s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
            if "Expiration" in rule
        ]
        assert expired == ([60] if purpose == "training" else [])


def test_a_role_is_assumed_by_its_service_account_only(applied: Cloud) -> None:
    iam = applied.client("iam")
    accounts = {"mlflow": "mlflow", "training": "ray", "flows": "flows"}
    assert set(applied.outputs()["role_arns"]) == set(accounts)
    for role, account in accounts.items():
        trust = iam.get_role(RoleName=f"{PREFIX}-{role}")["Role"]["AssumeRolePolicyDocument"]
        (statement,) = trust["Statement"]
        assert statement["Principal"]["Federated"].endswith(_ISSUER)
        assert statement["Condition"]["StringEquals"] == {
            f"{_ISSUER}:aud": "sts.amazonaws.com",
            f"{_ISSUER}:sub": f"system:serviceaccount:mirnet:{account}",
        }


def _same(image: Image) -> Image:
    return image


def test_the_flows_role_is_enough_for_a_night_and_no_more(roles: Cloud, tmp_path: Path) -> None:
    with environment(**roles.environment):
        photos = open_store(f"s3://{PREFIX}-photos/incoming", Settings(s3_endpoint_url=roles.url))
        file = io.BytesIO()
        Picture.fromarray(np.full((24, 32, 3), 20, np.uint8)).save(file, "PNG")
        photos.put("0.png", file.getvalue(), content_type="image/png")
        photos.put("broken.png", file.getvalue()[:40], content_type="image/png")
    with roles.as_role("flows") as settings:
        result = run_batch(
            f"s3://{PREFIX}-photos/incoming",
            f"s3://{PREFIX}-enhanced/incoming",
            enhance=_same,
            model=ModelRef(name="mirnet"),
            params=EnhanceParams(),
            settings=settings.model_copy(update={"workspace": tmp_path}),
        )
        assert (result.enhanced, result.quarantined, result.failed) == (1, 1, 0)
        originals = open_store(f"s3://{PREFIX}-photos/incoming", settings)
        assert originals.get("0.png").data == file.getvalue()
        with pytest.raises(StorageError, match="access denied"):
            originals.put("0.png", b"x", content_type="image/png")
        with pytest.raises(StorageError, match="access denied"):
            originals.delete("0.png")


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [
        ("mlflow", {"mlflow"}, {"mlflow"}),
        ("training", {"training", "data"}, {"training"}),
        ("flows", {"training", "data", "photos", "enhanced"}, {"training", "enhanced"}),
    ],
)
def test_a_role_reaches_its_own_buckets_only(
    role: str, reads: set[str], writes: set[str], roles: Cloud
) -> None:
    buckets = roles.outputs()["buckets"]
    with roles.as_role(role) as settings:
        for purpose, name in buckets.items():
            store = open_store(f"s3://{name}", settings)
            assert _allowed(store.check) == (purpose in reads), purpose
            put = _allowed(lambda s=store: s.put("planted", b"x", content_type="text/plain"))
            assert put == (purpose in writes), purpose


def _allowed(call: Any) -> bool:
    try:
        call()
    except StorageError as error:
        assert "access denied" in str(error)
        return False
    return True
