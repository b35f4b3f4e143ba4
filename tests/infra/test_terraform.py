"""Terraform: what can be said without a provider, and policies against the calls of the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

# which permission each call of the code needs
ACTIONS = {
    "list_objects_v2": "s3:ListBucket",
    "head_object": "s3:GetObject",
    "get_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "copy_object": "s3:PutObject",
    # managed transfers: the same, in parts where objects are large
    "copy": "s3:PutObject",
    "download_fileobj": "s3:GetObject",
    "upload_fileobj": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "head_bucket": "s3:ListBucket",
}
_PER_BUCKET = (
    "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_ownership_controls",
    "aws_s3_bucket_versioning",
    "aws_s3_bucket_server_side_encryption_configuration",
    "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_policy",
)


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    paths = sorted((root / "infra/terraform").glob("*.tf"))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.fixture(scope="module")
def policies(root: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for path in (root / "infra/terraform/policies").glob("*.json.tftpl"):
        loaded = json.loads(path.read_text(encoding="utf-8").replace("${prefix}", "acme"))
        found[path.name.partition(".")[0]] = loaded["Statement"]
    return found


def test_it_is_hcl_and_formatted(root: Path, text: str) -> None:
    assert hcl2.loads(text)["resource"]
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("no terraform here")
    done = subprocess.run(
        [terraform, f"-chdir={root / 'infra/terraform'}", "fmt", "-check", "-recursive"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_references_hold(text: str) -> None:
    variables = set(re.findall(r'^variable "(\w+)"', text, re.M))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    resources = {f"{a}.{b}" for a, b in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.M)}
    used = {f"{a}.{b}" for a, b in re.findall(r"\b(aws_\w+)\.(\w+)", text)}
    used -= {f"{a}.{b}" for a, b in re.findall(r"data\.(aws_\w+)\.(\w+)", text)}
    assert used <= resources


def test_every_bucket_is_private_encrypted_and_versioned(text: str) -> None:
    for kind in _PER_BUCKET:
        block = re.search(rf'^resource "{kind}" .*?^}}', text, re.M | re.S)
        assert block is not None, kind
        assert re.search(r"for_each\s+= (aws_s3_bucket\.this|local\.buckets)", block[0]), kind
    block = re.search(r'^resource "aws_s3_bucket_public_access_block".*?^}', text, re.M | re.S)
    assert block is not None
    assert block[0].count("= true") == 4


def test_policies_name_their_buckets_and_no_more(
    text: str, policies: dict[str, list[dict[str, Any]]]
) -> None:
    section = re.search(r"buckets = \{(.*?)\n  \}", text, re.S)
    assert section is not None
    buckets = set(re.findall(r"^    (\w+)\s+=", section[1], re.M))
    assert buckets >= {"data", "mlflow", "training", "photos", "enhanced"}
    for name, statements in policies.items():
        for statement in statements:
            assert statement["Effect"] == "Allow"
            assert not any("*" in action for action in statement["Action"]), name
            for resource in statement["Resource"]:
                match = re.fullmatch(r"arn:aws:s3:::acme-(\w+)(/\*)?", resource)
                assert match is not None, resource
                assert match[1] in buckets
                is_list = statement["Action"] == ["s3:ListBucket"]
                assert is_list == (match[2] is None), statement["Sid"]
    assert set(policies) == set(re.findall(r'"(\w+)"', _policy_names(text)))


def _policy_names(text: str) -> str:
    found = re.search(r"for_each = toset\(\[(.*?)\]\)", text)
    assert found is not None
    return found[1]


def test_the_policy_of_the_night_allows_the_calls_that_the_code_makes(
    root: Path, policies: dict[str, list[dict[str, Any]]]
) -> None:
    source = (root / "mirnet/storage/s3.py").read_text(encoding="utf-8")
    calls = set(re.findall(r"_client\.(\w+)\(", source)) - {"close"}
    assert "put_object" in calls
    needed = {ACTIONS[call] for call in calls}
    granted = {action for s in policies["enhance"] for action in s["Action"]}
    assert needed <= granted
    # what no call needs is not granted; multipart clean-up belongs to PutObject
    assert granted - needed <= {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}


def test_the_night_cannot_change_the_originals(
    policies: dict[str, list[dict[str, Any]]],
) -> None:
    on_photos = {
        action
        for statement in policies["enhance"]
        if any("acme-photos" in resource for resource in statement["Resource"])
        for action in statement["Action"]
    }
    assert on_photos == {"s3:ListBucket", "s3:GetObject"}


def test_the_page_gives_every_variable_that_has_no_default(root: Path, text: str) -> None:
    blocks = re.findall(r'^variable "(\w+)" \{(.*?)^\}', text, re.M | re.S)
    needed = {name for name, body in blocks if "default" not in body}
    page = (root / "docs/clusters.md").read_text(encoding="utf-8")
    assert needed == set(re.findall(r"-var (\w+)=", page))


def test_manifests_use_buckets_that_are_made(root: Path, text: str) -> None:
    section = re.search(r"buckets = \{(.*?)\n  \}", text, re.S)
    assert section is not None
    made = {f"mirnet-{name}" for name in re.findall(r"^    (\w+)\s+=", section[1], re.M)}
    used: set[str] = set()
    for path in (root / "infra/kubernetes").rglob("*.yaml"):
        used |= set(re.findall(r"s3://([\w-]+)", path.read_text(encoding="utf-8")))
    assert used
    assert used <= made
