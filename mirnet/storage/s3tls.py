"""Mutual TLS with private certificates for the inner ports of the S3 server.

SeaweedFS has a master, a volume server, a filer and an administrator behind the S3 port, each with
an HTTP and a gRPC port, by default without authentication. With this configuration each requires
a certificate of an authority that signs once and whose key is discarded.

``python -m mirnet.storage.s3tls FOLDER HOST`` does it in a container.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.atomic import write_atomically
from mirnet.errors import StorageError

if TYPE_CHECKING:
    from cryptography import x509

CONFIGURATION = "security.toml"
_AUTHORITY, _CERTIFICATE, _KEY = "authority.pem", "certificate.pem", "key.pem"
_GRPC = ("volume", "master", "filer", "s3", "msg_broker", "msg_agent", "admin", "worker", "mq")
_HTTPS = ("volume", "master", "filer", "admin")
# useless without the key, which stays in the folder, so no expiry and no dependence on clocks
_FROM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


def write_configuration(folder: Path, host: str = "127.0.0.1") -> Path:
    """Create keys and ``security.toml`` in a folder of mode 0700, once; returns it, for ``weed``.

    Args:
        folder: may be that of an existing server; complete files in it stay.
        host: the name or address under which the parts of the server call each other.

    Raises:
        StorageError: the folder cannot be written; names it.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        _make(folder, host)
    except OSError as error:
        raise StorageError(f"{folder}: cannot keep the S3 server's keys: {error}") from error
    return folder


def _make(folder: Path, host: str) -> None:
    names = (_AUTHORITY, _CERTIFICATE, _KEY, CONFIGURATION)
    text = _configuration(folder)
    configuration = folder / CONFIGURATION
    whole = all((folder / name).is_file() for name in names)
    if not whole:
        for name, content in zip(names, _certificates(host), strict=False):
            write_atomically(folder / name, content, mode=0o600)
    # written last, and again if the folder was moved
    if not whole or configuration.read_text(encoding="utf-8") != text:
        write_atomically(configuration, text, mode=0o600)


def _configuration(folder: Path) -> str:
    def quoted(name: str) -> str:
        path = str(folder / name).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{path}"'

    authority = f"ca = {quoted(_AUTHORITY)}"
    ours = f"cert = {quoted(_CERTIFICATE)}\nkey = {quoted(_KEY)}"
    return "\n".join(
        [
            f"[grpc]\n{authority}",
            *(f"[grpc.{part}]\n{ours}" for part in (*_GRPC, "client")),
            f"[https.client]\nenabled = true\n{authority}\n{ours}",
            *(f"[https.{part}]\n{authority}\n{ours}" for part in _HTTPS),
            "",
        ]
    )


def _certificates(host: str) -> tuple[bytes, bytes, bytes]:
    """PEM of an authority, of a client and server certificate signed by it, and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def started(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("mirnet s3 authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FROM)
            .not_valid_after(_UNTIL)
        )

    signer = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    basic = x509.BasicConstraints(ca=True, path_length=0)
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = started("mirnet s3 authority", signer).add_extension(basic, critical=True)
    certificate = (
        started("mirnet s3", key)
        .add_extension(x509.SubjectAlternativeName([_name(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
    )
    pem = serialization.Encoding.PEM
    return (
        authority.sign(signer, hashes.SHA256()).public_bytes(pem),
        certificate.sign(signer, hashes.SHA256()).public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


if __name__ == "__main__":
    write_configuration(Path(sys.argv[1]), sys.argv[2])
