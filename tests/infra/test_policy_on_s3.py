"""The night's least-privilege policy, put in force on a real S3 server: it suffices, and no more.

The server knows actions by bucket; what the policy of Terraform grants is translated to those.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.extras import program
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server, keys_folder, shell_argv

BUCKETS = ("photos", "enhanced", "training", "mlflow")
_KINDS = {
    "s3:ListBucket": "List",
    "s3:GetObject": "Read",
    "s3:PutObject": "Write",
    "s3:DeleteObject": "Write",
    "s3:AbortMultipartUpload": "Write",
    "s3:ListMultipartUploadParts": "Write",
}


def granted(root: Path) -> dict[str, set[str]]:
    """Bucket -> kinds of action of the policy ``enhance``."""
    path = root / "infra/terraform/policies/enhance.json.tftpl"
    found: dict[str, set[str]] = {}
    for statement in json.loads(path.read_text("utf-8"))["Statement"]:
        for resource in statement["Resource"]:
            bucket = resource.removeprefix("arn:aws:s3:::${prefix}-").removesuffix("/*")
            found.setdefault(bucket, set()).update(_KINDS[a] for a in statement["Action"])
    return found


@pytest.fixture(scope="module")
def night(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that knows the identity ``night``, whose key is ``night-key``."""
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=BUCKETS) as server:
        commands = [
            f"s3.configure -user=night -access_key=night-key -secret_key=night-secret "
            f"-buckets={bucket} -actions={','.join(sorted(kinds))} -apply"
            for bucket, kinds in granted(root).items()
        ]
        done = subprocess.run(
            shell_argv(program("stack", "weed"), server.ports, keys=keys_folder(server.folder)),
            input="\n".join([*commands, ""]),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "error:" not in done.stderr
        yield server


@pytest.fixture
def settings(
    night: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    variables = night.environment | {
        "AWS_ACCESS_KEY_ID": "night-key",
        "AWS_SECRET_ACCESS_KEY": "night-secret",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield Settings(workspace=tmp_path / "workspace", lease_s=5)


@pytest.fixture
def photos(night: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two photographs and a broken one, put there by the owner of the bucket."""
    for name, value in night.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://photos/incoming", Settings())
    for number in range(2):
        file = io.BytesIO()
        Picture.fromarray(np.full((24, 32, 3), 20 + number, np.uint8)).save(file, "PNG")
        store.put(f"{number}.png", file.getvalue(), content_type="image/png")
    store.put("broken.png", file.getvalue()[:40], content_type="image/png")


def _same(image: Image) -> Image:
    return image


def test_a_whole_night_needs_no_more_than_the_policy(photos: None, settings: Settings) -> None:
    result = run_batch(
        "s3://photos/incoming",
        "s3://enhanced/incoming",
        enhance=_same,
        model=ModelRef(name="mirnet"),
        params=EnhanceParams(),
        settings=settings,
    )
    assert (result.enhanced, result.quarantined, result.failed) == (2, 1, 0)
    keys = {info.key for info in open_store("s3://enhanced/incoming", settings).list()}
    assert {"0.png", "1.png"} <= keys
    assert any("quarantine" in key for key in keys)


def test_the_policy_lets_nothing_else_through(photos: None, settings: Settings) -> None:
    originals = open_store("s3://photos/incoming", settings)
    assert originals.get("0.png").data
    with pytest.raises(StorageError, match="access denied"):
        originals.put("0.png", b"x", content_type="image/png")
    with pytest.raises(StorageError, match="access denied"):
        originals.delete("0.png")
    for bucket in ("mlflow", "training"):
        with pytest.raises(StorageError, match="access denied"):
            open_store(f"s3://{bucket}", settings).check()
        with pytest.raises(StorageError, match="access denied"):
            open_store(f"s3://{bucket}", settings).put("x", b"x", content_type="text/plain")
