"""The model registry: verified versions, and models by address."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UntrustedModel, WeightsError
from mirnet.results import OpenedModel
from mirnet.signing.files import differences, file_digests
from mirnet.signing.statement import GateDecision, Statement
from mirnet.tracking.client import connect, has_store, ignored, service_errors
from mirnet.tracking.history import Standing, read_records, standing
from mirnet.tracking.logged_models import DIGEST_TAG, download, log_model, weights_digest
from mirnet.tracking.trust import (
    NATIVE,
    WEIGHTS,
    Trust,
    check_native,
    statement_of,
    write_statement,
)
from mirnet.tracking.versions import (
    COMMIT_TAG,
    DATA_TAG,
    MODEL_TAG,
    RegisteredVersion,
    get_version,
    list_versions,
    location_of,
    parse,
    require_ready,
    tag_version,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "COMMIT_TAG",
    "DATA_TAG",
    "RegisteredVersion",
    "add_card",
    "check",
    "get_version",
    "list_versions",
    "register",
    "resolve",
    "sign_decision",
    "tag_version",
    "verify",
]

_ATTEMPTS, _PAUSE_S = 3, 0.5
_VERSIONS_TAG = "mlflow.modelVersions"


def register(
    model_dir: Path,
    *,
    name: str,
    run_id: str,
    settings: Settings,
    tags: Mapping[str, str | None] | None = None,
) -> RegisteredVersion:
    """Package a model in the project's format, verify the package, and register a version.

    Idempotent: the same weights and run give the existing version, also after a crash in between.

    Args:
        run_id: The training run; the model is logged as its output.
        tags: Tags of the version, such as ``mirnet.data_digest`` and ``mirnet.git_commit``.

    Raises:
        WeightsError: the folder is not a model, or its package does not reproduce its output.
        ServiceError: MLflow cannot be reached or refuses access.
    """
    client, digest = connect(settings), weights_digest(model_dir)
    all_tags = {k: v for k, v in (tags or {}).items() if v is not None} | {DIGEST_TAG: digest}
    with service_errors(settings.mlflow_uri):
        for version in list_versions(name, settings):
            same = version.weights_digest == digest and version.run_id == run_id
            if same and version.status == "READY":
                return version
        model_id = log_model(model_dir, run_id=run_id, tags=all_tags, settings=settings)
        with ignored("RESOURCE_ALREADY_EXISTS"):
            client.create_registered_model(name)
        # a models:/ID source would be looked up in MLflow's global store instead of this one
        location = client.get_logged_model(model_id).artifact_location
        all_tags[MODEL_TAG] = model_id
        created = client.create_model_version(
            name, location, run_id=run_id, tags=all_tags, model_id=model_id
        )
        _show_registered(client, model_id, name, str(created.version))
        return version_of(created, ())


def _show_registered(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """The tag by which MLflow's page of the logged model names its versions.

    A server adds it by itself, a client of a database does not.
    """
    found = client.get_logged_model(model_id).tags.get(_VERSIONS_TAG, "[]")
    known, this = json.loads(found), {"name": name, "version": int(version)}
    if all((v["name"], str(v["version"])) != (name, version) for v in known):
        client.set_logged_model_tags(model_id, {_VERSIONS_TAG: json.dumps([*known, this])})


def add_card(version: RegisteredVersion, name: str, text: str, settings: Settings) -> None:
    """Put the model card into the package and the description, before the version is signed.

    A signed version keeps the card that was signed with it.

    Args:
        name: of the file, in the root of the package.

    Raises:
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    if version.signed:
        return
    client = connect(settings)
    with service_errors(settings.mlflow_uri), tempfile.TemporaryDirectory() as folder:
        if version.model_id is not None:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            client.log_model_artifact(version.model_id, str(path))
        client.update_model_version(version.name, version.version, text)


def check(reference: str, settings: Settings) -> tuple[RegisteredVersion, Statement | None]:
    """A version and its verified statement; nothing of its artifacts is read.

    An alias has to be where the history of the model put it.

    Returns:
        The statement is none if the version is unsigned and ``allow_unsigned`` is set.

    Raises:
        UsageError: no such version, or no key to verify it with.
        UntrustedModel: it has no valid signature, or its alias was moved by something else.
        WeightsError: the version is not READY.
        ServiceError: MLflow cannot be reached.
    """
    if not has_store(settings):
        get_version(reference, settings)  # says so, before a missing key does
    trust = Trust.of(settings)
    for attempt in range(_ATTEMPTS):
        version = get_version(reference, settings)
        alias = parse(reference)[1]
        held = None if alias is None else _held(version.name, trust, settings)
        if alias is None or held is None or held.allows(alias, version.version):
            break
        if attempt + 1 == _ATTEMPTS:
            # the signature first: without one, signing is what helps
            statement_of(version, trust)
            raise UntrustedModel(_moved(version, alias, held))
        time.sleep(_PAUSE_S)  # a promotion may have come between the two answers
    require_ready(version)
    return version, statement_of(version, trust)


def resolve(reference: str, settings: Settings) -> OpenedModel:
    """A registered model as a local folder in the project's format, verified by its statement.

    Local artifacts are used in place; others are downloaded once into the cache.

    Raises:
        UsageError: no such version, or no key to verify it with.
        UntrustedModel: it has no valid signature, or its alias was moved by something else.
        WeightsError: the version is not READY, or a file is not the one that was signed.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    version, statement = check(reference, settings)
    folder = _native_folder(version, settings)
    files = file_digests(folder)
    check_native(version, statement, files, folder)
    ref = replace(version.ref, weights_digest=weights_digest(folder))
    return OpenedModel(folder, ref, version.model_id, files)


def fetch(version_address: str, settings: Settings) -> Path:
    """The model folder of ``models:/NAME/NUMBER``, not verified: compare it with known digests.

    For workers of a job, which need no key: the driver has verified the model.
    """
    return _native_folder(get_version(version_address, settings), settings)


def verify(version: RegisteredVersion, settings: Settings) -> dict[str, str]:
    """Download and prove the version: READY, loads without pickle, reproduces its output.

    Returns:
        SHA-256 of every file of the package.

    Raises:
        WeightsError: a check fails; says which.
    """
    from mirnet.tracking.packaging import verify_package

    require_ready(version)
    with tempfile.TemporaryDirectory(prefix="mirnet-verify-") as folder:
        package = download(location_of(version, settings), settings, Path(folder))
        files = file_digests(package)
        verify_package(package)
    _check_weights(version, files)
    return files


def package_digests(version: RegisteredVersion, settings: Settings) -> dict[str, str]:
    """SHA-256 of every file of the package."""
    with tempfile.TemporaryDirectory(prefix="mirnet-package-") as folder:
        return file_digests(download(location_of(version, settings), settings, Path(folder)))


def sign_decision(version: RegisteredVersion, gate: GateDecision, settings: Settings) -> None:
    """Sign a version with a decision that moves no alias.

    Raises:
        WeightsError: its files are not those that an earlier statement names, or the weights not
            those that were registered.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    trust = Trust.of(settings)
    files = package_digests(version, settings)
    if version.signed:
        before = statement_of(version, trust)
        problems = differences(before.files, files) if before else []
        if problems:
            raise WeightsError(f"{version.label}: {'; '.join(problems[:5])}")
    else:
        _check_weights(version, files)
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        write_statement(client, version, files, gate, settings)


def _check_weights(version: RegisteredVersion, files: Mapping[str, str]) -> None:
    if version.weights_digest is None:
        raise WeightsError(
            f"{version.label} has no digest of its weights (tag {DIGEST_TAG}): it was not "
            "registered by Mirnet, or changed since"
        )
    if version.weights_digest != files.get(WEIGHTS):
        raise WeightsError(
            f"{version.label}: the stored weights are not those that were registered"
        )


def _held(name: str, trust: Trust, settings: Settings) -> Standing:
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        return standing(read_records(client, name, trust))


def _moved(version: RegisteredVersion, alias: str, held: Standing) -> str:
    """What is wrong with an alias, and the way out."""
    at, expected = f"{version.name}@{alias} is version {version.version}", held.settled.get(alias)
    if not held.vouched and expected == version.version:
        return f"{at} by a history without signatures: `mirnet registry sign` proves and signs it"
    there = f"version {expected}" if expected else "none"
    return (
        f"{at}, but by its history it is {there}: moved by something else. "
        "`mirnet registry rollback` puts back what was there, `mirnet registry promote "
        f"{version.address}` puts this version into service"
    )


def _native_folder(version: RegisteredVersion, settings: Settings) -> Path:
    location = f"{location_of(version, settings)}/{NATIVE}"
    if location.startswith("file://"):
        return download(location, settings, None)
    return _cached(location, version, settings)


def _cached(location: str, version: RegisteredVersion, settings: Settings) -> Path:
    root = settings.cache("models")
    name = version.model_id or f"{version.name}-{version.version}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):  # of a tag: may be `../..`
        name = hashlib.sha256(name.encode()).hexdigest()
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
        fetched = download(location, settings, Path(partial))
        try:
            # atomically: another process may look for it at the same time
            fetched.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(fetched)
    return folder
