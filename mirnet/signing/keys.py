"""Keys: one private key signs; everybody else needs the public ones only.

PEM files: PKCS 8 for the private key, SubjectPublicKeyInfo for public keys, several of them in one
file while a key is being replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.atomic import write_atomically
from mirnet.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

PRIVATE, PUBLIC = "model-signing.key", "model-signing.pub"
# a key file of many public keys is far below
_MAX_BYTES = 1 << 20
_CURVE = "secp256r1"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    """A private key; ``key_id`` is that of its public key."""

    key_id: str
    _key: EllipticCurvePrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """ECDSA signature over SHA-256 of the message, DER."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys by their id, SHA-256 of the PEM."""

    origin: Path
    _keys: dict[str, EllipticCurvePublicKey] = field(repr=False)

    @property
    def key_ids(self) -> Sequence[str]:
        """Ids of all keys."""
        return tuple(self._keys)

    def signer_of(self, message: bytes, signature: bytes) -> str | None:
        """Id of the key that signed the message; none: no trusted one did."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        for key_id, key in self._keys.items():
            try:
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return key_id
        return None


def make_keys(folder: Path) -> str:
    """Create a key pair in a folder; returns its id.

    The private key gets mode 0600, a new folder 0700.

    Raises:
        UsageError: one of the files exists, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    for name in (PRIVATE, PUBLIC):
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists: name another folder with --out")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = _public_pem(key.public_key())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder / PRIVATE, pem, mode=0o600)
        write_atomically(folder / PUBLIC, public, mode=0o644)
    except OSError as error:
        raise UsageError(f"{folder}: cannot write keys: {error.strerror}") from error
    return _id_of(public)


def ensure_keys(folder: Path) -> None:
    """:func:`make_keys` unless the folder has them. For one process at a time."""
    if not (folder / PRIVATE).exists():
        make_keys(folder)


def load_signing_key(path: Path) -> SigningKey | None:
    """The private key of a PEM file; none: there is no such file.

    Raises:
        UsageError: others can read it, or it is no private key on P-256.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    if content is None:
        return None
    mode = path.stat().st_mode & 0o777
    # read access of the group is what Kubernetes gives with fsGroup
    if mode & 0o027:
        raise UsageError(f"{path} has mode {mode:o}; set it: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, password=None)
    except (TypeError, UnsupportedAlgorithm, ValueError) as error:
        raise UsageError(f"{path}: no private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE:
        raise UsageError(f"{path}: not a key on the curve P-256: `mirnet keys new` makes one")
    return SigningKey(_id_of(_public_pem(key.public_key())), key)


def load_trusted_keys(path: Path) -> TrustedKeys | None:
    """The public keys of a PEM file; none: there is no such file.

    Raises:
        UsageError: it has no public key, or one that is not on P-256.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    if content is None:
        return None
    keys = {}
    for block in _PEM.findall(content):
        try:
            key = load_pem_public_key(block)
        except (UnsupportedAlgorithm, ValueError) as error:
            raise UsageError(f"{path}: a public key in it cannot be read") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVE:
            raise UsageError(f"{path}: a key in it is not on the curve P-256")
        keys[_id_of(_public_pem(key))] = key
    if not keys:
        raise UsageError(f"{path}: no public key in PEM")
    return TrustedKeys(path, keys)


def _public_pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _id_of(public_pem: bytes) -> str:
    """As OpenSSF model signing names a key in its bundles."""
    return hashlib.sha256(public_pem).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
