"""Versions of registered models, as MLflow has them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UsageError, WeightsError
from mirnet.results import ModelRef
from mirnet.tracking.client import connect, has_store, service_errors
from mirnet.tracking.logged_models import DIGEST_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DATA_TAG, COMMIT_TAG = "mirnet.data_digest", "mirnet.git_commit"
MODEL_TAG = "mirnet.logged_model"
GATE_TAG, REASONS_TAG = "mirnet.gate", "mirnet.gate_reasons"
SIGNATURE_TAG = "mirnet.signature"


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str | None
    model_id: str | None
    status: str
    created_s: float
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.name} version {self.version}"

    @property
    def address(self) -> str:
        """``models:/NAME/NUMBER``."""
        return f"models:/{self.name}/{self.version}"

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of the weights, of the tag."""
        return self.tags.get(DIGEST_TAG)

    @property
    def signature(self) -> str:
        """The bundle; empty if it has none."""
        return self.tags.get(SIGNATURE_TAG, "")

    @property
    def signed(self) -> bool:
        """Whether it has a signature, of whomever."""
        return SIGNATURE_TAG in self.tags

    @property
    def ref(self) -> ModelRef:
        """Its identity, as far as its tags tell."""
        return ModelRef(
            self.name,
            self.version,
            self.run_id,
            data_digest=self.tags.get(DATA_TAG),
            git_commit=self.tags.get(COMMIT_TAG),
            weights_digest=self.weights_digest,
        )


def list_versions(name: str, settings: Settings) -> list[RegisteredVersion]:
    """All versions, newest first, with their aliases; empty if the name is unknown."""
    if not has_store(settings):
        return []
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{quoted(name)}'"):
            return []
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{quoted(name)}'")
    versions = [
        version_of(v, tuple(a for a, number in aliases.items() if str(number) == str(v.version)))
        for v in found
    ]
    return sorted(versions, key=lambda v: int(v.version), reverse=True)


def get_version(reference: str, settings: Settings) -> RegisteredVersion:
    """The version of ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``.

    Raises:
        UsageError: the address has another form, or there is no such version; lists the
            existing ones.
    """
    name, alias, number = parse(reference)
    versions = list_versions(name, settings)
    for version in versions:
        if (alias and alias in version.aliases) or (number and number == version.version):
            return version
    there = ", ".join(
        f"{v.version} {' '.join('@' + a for a in v.aliases)}".strip() for v in versions
    )
    raise UsageError(
        f"{reference}: no such version in {settings.mlflow_uri}; "
        + (
            f"there are {there}"
            if there
            else f"{name} has no versions: run `mirnet promote` "
            "first, or name the model in the package: base"
        )
    )


def tag_version(name: str, version: str, tags: Mapping[str, str], settings: Settings) -> None:
    """Tag a version, for example with the gate's reasons; in the given order."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)


def location_of(version: RegisteredVersion, settings: Settings) -> str:
    """URI of the artifacts of a version."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        return str(client.get_model_version_download_uri(version.name, version.version))


def require_ready(version: RegisteredVersion) -> None:
    """Refuse a version that is not whole.

    Raises:
        WeightsError: it is not READY.
    """
    if version.status != "READY":
        raise WeightsError(
            f"{version.label} is {version.status}, not READY: register the model again"
        )


def parse(reference: str) -> tuple[str, str | None, str | None]:
    """Name, alias and number of an address; one of the last two is none.

    Raises:
        UsageError: the address has another form.
    """
    path = reference.removeprefix("models:/")
    name, at, alias = path.partition("@")
    if at and name and alias and path != reference:
        return name, alias, None
    name, slash, number = path.partition("/")
    if slash and name and number.isdigit() and path != reference:
        return name, None, number
    raise UsageError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/NUMBER")


def version_of(found: ModelVersion, aliases: tuple[str, ...]) -> RegisteredVersion:
    """From MLflow's own class."""
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


def quoted(name: str) -> str:
    return name.replace("'", "''")
