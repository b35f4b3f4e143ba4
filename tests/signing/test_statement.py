"""The statement of a model package, its signature and its files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.errors import UsageError, WeightsError
from mirnet.signing.files import differences, file_digests
from mirnet.signing.keys import (
    PRIVATE,
    PUBLIC,
    SigningKey,
    TrustedKeys,
    load_signing_key,
    load_trusted_keys,
    make_keys,
)
from mirnet.signing.statement import (
    GateDecision,
    ModelFacts,
    Statement,
    open_statement,
    sign_statement,
)


def pair(folder: Path) -> tuple[SigningKey, TrustedKeys]:
    make_keys(folder)
    private, public = load_signing_key(folder / PRIVATE), load_trusted_keys(folder / PUBLIC)
    assert private and public
    return private, public


def statement(files: dict[str, str]) -> Statement:
    gate = GateDecision(outcome="promote", reasons=("better by 0.4 dB",), who="ann")
    facts = ModelFacts(
        name="mirnet", version="3", weights_digest="a" * 64, data_digest="d.dir", gate=gate,
        signed_s=1.5,
    )  # fmt: skip
    return Statement(facts=facts, files=files)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "native").mkdir(parents=True)
    (folder / "native" / "weights.safetensors").write_bytes(b"weights")
    (folder / "MLmodel").write_text("model")
    return folder


def test_a_statement_comes_back_with_its_key(tmp_path: Path, package: Path) -> None:
    key, trusted = pair(tmp_path / "keys")
    signed = statement(file_digests(package))
    back = open_statement(sign_statement(signed, key), trusted)
    assert back == signed.model_copy(update={"key_id": key.key_id})
    assert list(back.files) == ["MLmodel", "native/weights.safetensors"]


def test_the_bundle_is_that_of_openssf_model_signing(tmp_path: Path, package: Path) -> None:
    """Verified by hand as ``model_signing verify key`` 1.1.1 does, without code of ours."""
    key, _ = pair(tmp_path / "keys")
    bundle = json.loads(sign_statement(statement(file_digests(package)), key))
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    public = (tmp_path / "keys" / PUBLIC).read_bytes()
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    assert hint == hashlib.sha256(public).hexdigest()
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    loaded = serialization.load_pem_public_key(public)
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    loaded.verify(signature, message, ec.ECDSA(hashes.SHA256()))

    content = json.loads(payload)
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://model_signing/signature/v1.0"
    resources = content["predicate"]["resources"]
    whole = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    assert content["subject"] == [{"name": "mirnet/3", "digest": {"sha256": whole}}]
    assert content["predicate"]["serialization"]["method"] == "files"
    assert content["predicate"]["mirnet"]["gate"]["outcome"] == "promote"


def test_one_changed_byte_of_the_payload_is_found(tmp_path: Path, package: Path) -> None:
    key, trusted = pair(tmp_path / "keys")
    bundle = json.loads(sign_statement(statement(file_digests(package)), key))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    changed = payload.replace(b'"outcome":"promote"', b'"outcome":"by hand"')
    assert changed != payload
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(WeightsError, match=r"not of a key in .*model-signing\.pub"):
        open_statement(json.dumps(bundle), trusted)


def test_another_key_is_not_trusted_until_it_is_added(tmp_path: Path, package: Path) -> None:
    _, old = pair(tmp_path / "old")
    new, _ = pair(tmp_path / "new")
    bundle = sign_statement(statement(file_digests(package)), new)
    with pytest.raises(WeightsError, match="not of a key"):
        open_statement(bundle, old)
    both = tmp_path / "both.pub"
    both.write_bytes((tmp_path / "old" / PUBLIC).read_bytes())
    with both.open("ab") as file:
        file.write((tmp_path / "new" / PUBLIC).read_bytes())
    trusted = load_trusted_keys(both)
    assert trusted and len(trusted.key_ids) == 2
    assert open_statement(bundle, trusted).key_id == new.key_id


@pytest.mark.parametrize("bundle", ["", "{}", "[1]", '{"dsseEnvelope": 3}', "\x00", "9" * 5000])
def test_what_is_no_bundle_is_named(tmp_path: Path, bundle: str) -> None:
    _, trusted = pair(tmp_path / "keys")
    with pytest.raises(WeightsError, match="signature is damaged"):
        open_statement(bundle, trusted)


def test_a_statement_of_another_kind_by_our_key_is_refused(tmp_path: Path) -> None:
    """The key may sign other things; a statement without a gate's decision is none of ours."""
    key, trusted = pair(tmp_path / "keys")
    bundle = json.loads(sign_statement(statement({"a": "b" * 64}), key))
    content = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    del content["predicate"]["mirnet"]["gate"]
    payload = json.dumps(content).encode()
    kind = bundle["dsseEnvelope"]["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(key.sign(message)).decode()
    with pytest.raises(WeightsError, match=r"predicate\.mirnet\.gate"):
        open_statement(json.dumps(bundle), trusted)


def test_more_files_than_fit_are_refused(tmp_path: Path) -> None:
    key, _ = pair(tmp_path / "keys")
    files = {f"file-{number}": "c" * 64 for number in range(1000)}
    with pytest.raises(WeightsError, match="1000 files is longer than 100000"):
        sign_statement(statement(files), key)


def test_every_difference_of_a_folder_is_named(package: Path) -> None:
    before = file_digests(package)
    assert differences(before, file_digests(package)) == []
    (package / "MLmodel").unlink()
    (package / "native" / "card.md").write_text("new")
    (package / "native" / "weights.safetensors").write_bytes(b"other")
    assert differences(before, file_digests(package)) == [
        "MLmodel is missing",
        "native/card.md was added",
        "native/weights.safetensors has changed",
    ]


def test_links_and_pipes_are_no_part_of_a_model(package: Path) -> None:
    link = package / "native" / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(WeightsError, match="link: only plain files"):
        file_digests(package)
    link.unlink()
    link.symlink_to("/etc")
    with pytest.raises(WeightsError, match="link: only plain files"):
        file_digests(package)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(WeightsError, match="link: only plain files"):
        file_digests(package)


def test_a_private_key_is_private_and_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    make_keys(folder)
    assert (folder / PRIVATE).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    before = (folder / PRIVATE).read_bytes()
    with pytest.raises(UsageError, match="exists"):
        make_keys(folder)
    assert (folder / PRIVATE).read_bytes() == before
    assert "BEGIN" not in repr(load_signing_key(folder / PRIVATE))
    (folder / PRIVATE).chmod(0o644)
    with pytest.raises(UsageError, match="mode 644; set it: chmod 600"):
        load_signing_key(folder / PRIVATE)
    # of a secret that Kubernetes mounts with fsGroup
    (folder / PRIVATE).chmod(0o440)
    assert load_signing_key(folder / PRIVATE)


def test_keys_of_another_kind_are_named(tmp_path: Path) -> None:
    assert load_signing_key(tmp_path / "absent") is None
    assert load_trusted_keys(tmp_path / "absent") is None
    path = tmp_path / "key"
    path.write_text("nothing")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no private key in PEM"):
        load_signing_key(path)
    with pytest.raises(UsageError, match="no public key in PEM"):
        load_trusted_keys(path)
    other = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = other.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private)
    with pytest.raises(UsageError, match="not a key on the curve P-256"):
        load_signing_key(path)
    public = other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(public)
    with pytest.raises(UsageError, match="not on the curve P-256"):
        load_trusted_keys(path)


def test_keys_are_made_by_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "work"))
    told = CliRunner().invoke(app, ["keys", "new"])
    assert told.exit_code == 0 and "MIRNET_SIGNING_KEY" not in told.output
    assert load_signing_key(tmp_path / "work" / "keys" / PRIVATE)
    again = CliRunner().invoke(app, ["keys", "new"])
    assert isinstance(again.exception, UsageError) and "exists" in str(again.exception)
    elsewhere = CliRunner().invoke(app, ["keys", "new", "--out", str(tmp_path / "other")])
    assert "MIRNET_SIGNING_KEY" in elsewhere.output
    assert load_trusted_keys(tmp_path / "other" / PUBLIC)
