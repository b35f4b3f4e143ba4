"""What is trusted in the registry: signed statements of versions.

Everything that opens a registered model asks :func:`statement_of` first. MLflow's tags, aliases and
artifacts may have been written by anybody with an account there; a statement by the owner of the
private key only.
"""

from __future__ import annotations

import getpass
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UntrustedModel, UsageError, WeightsError
from mirnet.signing.files import below, differences
from mirnet.signing.keys import (
    PRIVATE,
    PUBLIC,
    SigningKey,
    TrustedKeys,
    load_signing_key,
    load_trusted_keys,
)
from mirnet.signing.statement import (
    GateDecision,
    ModelFacts,
    Outcome,
    Statement,
    open_statement,
    sign_statement,
)
from mirnet.tracking.versions import COMMIT_TAG, DATA_TAG, SIGNATURE_TAG, RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

NATIVE = "native"
UNSIGNED = "unsigned"
WEIGHTS = f"{NATIVE}/weights.safetensors"


@dataclass(frozen=True)
class Trust:
    """Whose signatures count here.

    ``allow_unsigned``: what has no signature counts as well.
    """

    keys: TrustedKeys | None
    allow_unsigned: bool

    @classmethod
    def of(cls, settings: Settings, *, to_show: bool = False) -> Trust:
        """From the configured keys.

        Args:
            to_show: without a key nothing is trusted, instead of an error.

        Raises:
            UsageError: there is no public key, and unsigned models are not allowed.
        """
        path = _public_path(settings)
        keys = load_trusted_keys(path)
        if keys is None and not settings.allow_unsigned and not to_show:
            raise UsageError(
                f"{path}: no public key to verify models with. Copy it from where models are "
                "promoted, or run `mirnet keys new`; then, for versions from before the key, "
                "`mirnet registry sign`"
            )
        return cls(keys, settings.allow_unsigned)

    def signer_of(self, message: bytes, signature: bytes | None) -> str | None:
        """Id of the trusted key that signed, ``UNSIGNED`` where that is allowed; else none."""
        if signature is None or self.keys is None:
            return UNSIGNED if self.allow_unsigned else None
        return self.keys.signer_of(message, signature)


def signing_key(settings: Settings) -> SigningKey | None:
    """The configured private key; none: there is no key, and unsigned models are allowed.

    Raises:
        UsageError: there is none, or its public key is not among the trusted ones.
    """
    path = settings.signing_key or settings.keys_dir / PRIVATE
    key = load_signing_key(path)
    if key is None:
        if settings.allow_unsigned:
            return None
        raise UsageError(
            f"{path}: no private key to sign models with: run `mirnet keys new`, or name it with "
            "MIRNET_SIGNING_KEY"
        )
    trusted = Trust.of(settings).keys
    if trusted is None or key.key_id not in trusted.key_ids:
        raise UsageError(
            f"{path}: what this key signs is not trusted here: add its public key to "
            f"{_public_path(settings)}"
        )
    return key


def gate_decision(outcome: Outcome, *reasons: str) -> GateDecision:
    """A decision by the current account."""
    return GateDecision(outcome=outcome, reasons=reasons, who=getpass.getuser())


def write_statement(
    client: MlflowClient,
    version: RegisteredVersion,
    files: Mapping[str, str],
    gate: GateDecision,
    settings: Settings,
) -> None:
    """Sign what was proven of a version; nothing without a key, where that is allowed.

    Args:
        files: SHA-256 of every file of the package.
    """
    key = signing_key(settings)
    if key is None:
        log.warning("%s stays unsigned: there is no key (MIRNET_ALLOW_UNSIGNED)", version.label)
        return
    facts = ModelFacts(
        name=version.name,
        version=version.version,
        run_id=version.run_id,
        weights_digest=files[WEIGHTS],
        data_digest=version.tags.get(DATA_TAG),
        git_commit=version.tags.get(COMMIT_TAG),
        gate=gate,
        signed_s=time.time(),
    )
    bundle = sign_statement(Statement(facts=facts, files=files), key)
    client.set_model_version_tag(version.name, version.version, SIGNATURE_TAG, bundle)


def statement_of(version: RegisteredVersion, trust: Trust) -> Statement | None:
    """The verified statement of a version; none: unsigned, and that is allowed.

    Raises:
        UntrustedModel: unsigned, not by a trusted key, of another version, or contradicted by the
            tags of the version; says which and what to do.
    """
    bundle = version.tags.get(SIGNATURE_TAG)
    if bundle is None or trust.keys is None:
        if trust.allow_unsigned:
            return None
        raise UntrustedModel(
            f"{version.label} has no signature; if it is from before signatures, "
            f"`mirnet registry sign {version.address}` proves and signs it"
        )
    try:
        statement = open_statement(bundle, trust.keys)
    except WeightsError as error:
        raise UntrustedModel(f"{version.label}: {error}") from error
    problems = contradictions(version, statement)
    if problems:
        raise UntrustedModel(f"{version.label}: {'; '.join(problems)}")
    return statement


def contradictions(version: RegisteredVersion, statement: Statement) -> list[str]:
    """Where the registry says otherwise than the signed statement."""
    facts = statement.facts
    if (facts.name, facts.version) != (version.name, version.version):
        return [f"its signature is of {facts.name} version {facts.version}"]
    said = version.ref
    pairs = {
        "weights": (said.weights_digest, facts.weights_digest),
        "run": (said.run_id, facts.run_id),
        "data digest": (said.data_digest, facts.data_digest),
        "commit": (said.git_commit, facts.git_commit),
    }
    return [
        f"the {what} in the registry, {found or 'none'}, is not the signed one, {signed or 'none'}"
        for what, (found, signed) in pairs.items()
        if found != signed
    ]


def check_native(
    version: RegisteredVersion, statement: Statement | None, files: Mapping[str, str], folder: Path
) -> None:
    """Refuse a model folder that is not the registered one. To be called before it is read.

    Args:
        files: SHA-256 of every file that is in the folder.

    Raises:
        WeightsError: a file was changed, added or removed; without a statement, which covers all,
            only other weights are found.
    """
    if statement is not None:
        problems = differences(below(statement.files, NATIVE), files)
    elif version.weights_digest is None:
        problems = ["the version has no digest of its weights (tag mirnet.weights)"]
    else:
        expected, found = version.weights_digest, files.get(WEIGHTS.removeprefix(f"{NATIVE}/"))
        problems = [] if found == expected else ["the weights have changed"]
    if problems:
        raise WeightsError(
            f"{folder}: not what was registered as {version.label}: {'; '.join(problems[:5])}. "
            "Remove the folder if it is in the cache, or restore the artifacts"
        )


def _public_path(settings: Settings) -> Path:
    return settings.trusted_keys or settings.keys_dir / PUBLIC
