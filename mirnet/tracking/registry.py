"""The model registry: verified versions, and models by address."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UsageError, WeightsError
from mirnet.results import ModelRef, OpenedModel
from mirnet.tracking.client import connect, ignored, service_errors
from mirnet.tracking.logged_models import DIGEST_TAG, download, log_model, weights_digest

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DATA_TAG, COMMIT_TAG = "mirnet.data_digest", "mirnet.git_commit"
MODEL_TAG = "mirnet.logged_model"


@dataclass(frozen=True)
class RegisteredVersion:
    name: str
    version: str
    run_id: str | None
    model_id: str | None
    status: str
    created_s: float
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def weights_digest(self) -> str | None:
        return self.tags.get(DIGEST_TAG)

    @property
    def ref(self) -> ModelRef:
        """Its identity; what its tags lack is None."""
        return ModelRef(
            self.name,
            self.version,
            self.run_id,
            data_digest=self.tags.get(DATA_TAG),
            git_commit=self.tags.get(COMMIT_TAG),
            weights_digest=self.weights_digest,
        )


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
        return _version(created, ())


def list_versions(name: str, settings: Settings) -> list[RegisteredVersion]:
    """All versions, newest first, with their aliases; empty if the name is unknown."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{_quoted(name)}'"):
            return []
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{_quoted(name)}'")
    versions = [
        _version(v, tuple(a for a, number in aliases.items() if str(number) == str(v.version)))
        for v in found
    ]
    return sorted(versions, key=lambda v: int(v.version), reverse=True)


def get_version(reference: str, settings: Settings) -> RegisteredVersion:
    """The version of ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``.

    Raises:
        UsageError: the address has another form, or there is no such version; lists the
            existing ones.
    """
    name, alias, number = _parse(reference)
    versions = list_versions(name, settings)
    for version in versions:
        if (alias and alias in version.aliases) or (number and number == version.version):
            return version
    there = ", ".join(
        f"{v.version} {' '.join('@' + a for a in v.aliases)}".strip() for v in versions
    )
    raise UsageError(
        f"{reference}: no such version in {settings.mlflow_uri}; "
        + (f"there are {there}" if there else f"{name} has no versions: run `mirnet promote` first")
    )


def resolve(reference: str, settings: Settings) -> OpenedModel:
    """A registered model as a local folder in the project's format, with verified weights.

    Local artifacts are used in place; others are downloaded once into the cache.

    Raises:
        UsageError: no such version.
        WeightsError: the version is not READY, or its weights are not those registered.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    version = get_version(reference, settings)
    _require_ready(version)
    folder = _native_folder(version, settings)
    ref = replace(version.ref, weights_digest=weights_digest(folder))
    return OpenedModel(folder, ref, version.model_id)


def verify(version: RegisteredVersion, settings: Settings) -> None:
    """Download and verify the version: READY, loads without pickle, reproduces its output.

    Raises:
        WeightsError: a check fails; says which.
    """
    from mirnet.tracking.packaging import NATIVE, verify_package

    _require_ready(version)
    with tempfile.TemporaryDirectory(prefix="mirnet-verify-") as folder:
        package = download(_location(version, settings), settings, Path(folder))
        verify_package(package)
        if version.weights_digest not in (None, weights_digest(package / NATIVE)):
            raise WeightsError(
                f"{version.name} version {version.version}: the stored weights are not those "
                "that were registered"
            )


def tag_version(
    name: str,
    version: str,
    tags: Mapping[str, str],
    settings: Settings,
    *,
    description: str | None = None,
) -> None:
    """Tag a version, for example with the gate's reasons; in the given order."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if description is not None:
            client.update_model_version(name, version, description)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)


def _native_folder(version: RegisteredVersion, settings: Settings) -> Path:
    from mirnet.tracking.packaging import NATIVE

    location = f"{_location(version, settings)}/{NATIVE}"
    if location.startswith("file://"):
        folder = download(location, settings, None)
    else:
        folder = _cached(location, version, settings)
    if version.weights_digest not in (None, weights_digest(folder)):
        raise WeightsError(
            f"{folder}: not the weights of {version.name} version {version.version}; "
            "remove the folder if it is in the cache, or restore the artifacts"
        )
    return folder


def _cached(location: str, version: RegisteredVersion, settings: Settings) -> Path:
    root = settings.cache("models")
    folder = root / (version.model_id or f"{version.name}-{version.version}")
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


def _location(version: RegisteredVersion, settings: Settings) -> str:
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        return str(client.get_model_version_download_uri(version.name, version.version))


def _require_ready(version: RegisteredVersion) -> None:
    if version.status != "READY":
        raise WeightsError(
            f"{version.name} version {version.version} is {version.status}, not READY: "
            "register the model again"
        )


def _parse(reference: str) -> tuple[str, str | None, str | None]:
    path = reference.removeprefix("models:/")
    name, at, alias = path.partition("@")
    if at and name and alias and path != reference:
        return name, alias, None
    name, slash, number = path.partition("/")
    if slash and name and number.isdigit() and path != reference:
        return name, None, number
    raise UsageError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/NUMBER")


def _version(found: ModelVersion, aliases: tuple[str, ...]) -> RegisteredVersion:
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id or None,
        model_id=found.model_id or found.tags.get(MODEL_TAG),
        status=str(found.status),
        created_s=(found.creation_timestamp or time.time() * 1000) / 1000,
        tags=dict(found.tags),
        aliases=aliases,
    )


def _quoted(name: str) -> str:
    return name.replace("'", "''")
