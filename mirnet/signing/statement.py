"""The signed statement of a model package, in the format of OpenSSF model signing 1.0.

An in-toto statement with the digest of every file, in a DSSE envelope, in a Sigstore bundle. What
the format leaves to its users is below ``predicate.mirnet``: gate decision, data digest, commit.
The ``model-signing`` package verifies such a bundle; it is not used here, since its interface can
neither write nor return those fields, and it brings 15 packages that this needs none of.

https://github.com/sigstore/model-transparency, https://github.com/secure-systems-lab/dsse,
https://github.com/in-toto/attestation/tree/main/spec/v1
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mirnet.errors import WeightsError, problem_of
from mirnet.signing.keys import SigningKey, TrustedKeys

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"

# what MLflow takes as value of a tag of a version
MAX_BUNDLE_CHARS = 100_000

Outcome = Literal["promote", "keep", "refuse", "wait", "by hand"]


class _Frozen(BaseModel):
    """Other verifiers and later versions may add fields, so that unknown ones are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class GateDecision(_Frozen):
    """What was decided about a version, by the gate or a person."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    who: str = Field(description="account that signed")


class ModelFacts(_Frozen):
    """What the statement says beside the files."""

    name: str
    version: str
    run_id: str | None = None
    weights_digest: str = Field(description="SHA-256 of native/weights.safetensors")
    data_digest: str | None = None
    git_commit: str | None = None
    gate: GateDecision
    signed_s: float = Field(description="seconds since the epoch")


class Statement(BaseModel):
    """The content of a signature."""

    model_config = ConfigDict(frozen=True)

    facts: ModelFacts
    files: Mapping[str, str] = Field(description="SHA-256 by name relative to the package")
    key_id: str = ""


def sign_statement(statement: Statement, key: SigningKey) -> str:
    """The bundle, as JSON.

    Raises:
        WeightsError: the package has more files than a bundle of 100,000 characters names.
    """
    payload = _Payload.of(statement).model_dump_json(by_alias=True).encode()
    envelope = _Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=_PAYLOAD_TYPE,
        signatures=(_Signature(sig=_encoded(key.sign(pre_authentication(payload)))),),
    )
    material = {"publicKey": {"hint": key.key_id}, "tlogEntries": []}
    bundle = _Bundle(
        media_type=_BUNDLE_TYPE, verification_material=material, dsse_envelope=envelope
    ).model_dump_json(by_alias=True)
    if len(bundle) > MAX_BUNDLE_CHARS:
        raise WeightsError(
            f"{statement.facts.name} version {statement.facts.version}: a statement on "
            f"{len(statement.files)} files is longer than {MAX_BUNDLE_CHARS} characters"
        )
    return bundle


def open_statement(bundle: str, keys: TrustedKeys) -> Statement:
    """The statement of a bundle; nothing of it is interpreted before its signature is verified.

    Raises:
        WeightsError: no trusted key signed it, or it is not such a bundle; says which.
    """
    try:
        envelope = _Bundle.model_validate_json(bundle).dsse_envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except (ValidationError, binascii.Error) as error:
        raise WeightsError("its signature is damaged") from error
    key_id = keys.signer_of(pre_authentication(payload), signature)
    if key_id is None:
        raise WeightsError(f"its signature is not of a key in {keys.origin}")
    try:
        content = _Payload.model_validate_json(payload)
    except ValidationError as error:
        raise WeightsError(f"its signed statement: {problem_of(error)}") from error
    resources = content.predicate.resources
    return Statement(
        facts=content.predicate.mirnet,
        files={resource.name: resource.digest for resource in resources},
        key_id=key_id,
    )


def pre_authentication(payload: bytes, payload_type: str = _PAYLOAD_TYPE) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class _Resource(_Frozen):
    name: str
    algorithm: Literal["sha256"] = "sha256"
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Serialization(_Frozen):
    method: Literal["files"] = "files"
    hash_type: Literal["sha256"] = "sha256"
    allow_symlinks: Literal[False] = False
    ignore_paths: tuple[str, ...] = Field(default=(), max_length=0)


class _Predicate(_Frozen):
    serialization: _Serialization
    resources: tuple[_Resource, ...] = Field(min_length=1)
    mirnet: ModelFacts


class _Subject(_Frozen):
    name: str
    digest: dict[str, str]


class _Payload(_Frozen):
    """The in-toto statement."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[_Subject] = Field(description="the package and the digest of all digests")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate

    @classmethod
    def of(cls, statement: Statement) -> _Payload:
        digests = (bytes.fromhex(digest) for digest in statement.files.values())
        whole = hashlib.sha256(b"".join(digests)).hexdigest()
        facts = statement.facts
        return cls(
            _type=_STATEMENT_TYPE,
            subject=(_Subject(name=f"{facts.name}/{facts.version}", digest={"sha256": whole}),),
            predicateType=_PREDICATE_TYPE,
            predicate=_Predicate(
                serialization=_Serialization(),
                resources=tuple(
                    _Resource(name=name, digest=digest) for name, digest in statement.files.items()
                ),
                mirnet=facts,
            ),
        )


class _Camel(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


class _Signature(_Camel):
    sig: str
    keyid: str = ""


class _Envelope(_Camel):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: tuple[_Signature] = Field(description="exactly one")


class _Bundle(_Camel):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: dict[str, Any]
    dsse_envelope: _Envelope
