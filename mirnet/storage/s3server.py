"""A real S3 server on loopback for the demo and the tests: SeaweedFS from a wheel."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from mirnet import extras
from mirnet.errors import ServiceError, StorageError
from mirnet.guarded import guarded
from mirnet.storage.s3tls import write_configuration

PORTS = tuple(
    f"{part}{kind}"
    for part in ("s3", "master", "volume", "filer", "admin")
    for kind in ("", "-grpc")
)
USUAL_PORT = 8333
_STARTS = 3
_GRACE_S = 5.0


class S3Server:
    """``with S3Server(folder, buckets=("dark",)) as server:`` stores its data in ``folder``.

    Listens on 127.0.0.1 only, on free ports (S3 on ``port`` if given), with random credentials
    unless given; every port except S3 requires a certificate that only the server has. Apply
    ``environment`` to make boto3 and MIRNet use it. The folder becomes private (mode 0700).

    Raises:
        ServiceError: the program did not start; names its log file.
        ExtraMissing: it is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        buckets: tuple[str, ...] = (),
        access_key: str | None = None,
        secret_key: str | None = None,
        port: int | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.folder = folder.absolute()
        self.buckets = buckets
        self.access_key = access_key or secrets.token_hex(10)
        self.secret_key = secret_key or secrets.token_urlsafe(30)
        self.port = port
        self.timeout_s = timeout_s
        self.endpoint_url = ""
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make boto3, DVC, MLflow and MIRNet use this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "MIRNET_S3_ENDPOINT_URL": self.endpoint_url,
        }

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """Output of the server."""
        return self.folder / "server.log"

    def __enter__(self) -> Self:
        for _ in range(_STARTS - 1):
            # another process may have taken a port in the meantime
            with suppress(ServiceError):
                self._start()
                return self
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and wait for it. Idempotent."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            _kill_group(process)

    def kill(self) -> None:
        """Kill the server, like a crash."""
        process, self._process = self._process, None
        if process is not None:
            _kill_group(process)

    def _start(self) -> None:
        prepare_folder(self.folder)
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        if self.port is not None:
            require_free(self.port)
            self.ports["s3"] = self.port
        self.endpoint_url = f"http://127.0.0.1:{self.ports['s3']}"
        command = server_argv(
            extras.program("demo", "weed"), self.folder, self.ports, buckets=self.buckets
        )
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                guarded(*command, private=True),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    "AWS_ACCESS_KEY_ID": self.access_key,
                    "AWS_SECRET_ACCESS_KEY": self.secret_key,
                    "HOME": str(self.folder),
                },
                start_new_session=True,
            )
        with ExitStack() as stack:
            stack.callback(self.stop)
            self._wait_until_ready()
            stack.pop_all()

    def _wait_until_ready(self) -> None:
        """The port answers before the store is ready, and buckets come last."""
        deadline = time.monotonic() + self.timeout_s
        reason: str | None = "no answer"
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                reason = "it ended"
                break
            reason = problem(self.endpoint_url, self.access_key, self.secret_key, self.buckets)
            if reason is None:
                return
            time.sleep(0.1)
        raise ServiceError(f"S3 server at {self.endpoint_url}: {reason}; see {self.log_path}")


def prepare_folder(folder: Path) -> None:
    """A private folder for a server's data, with the keys of its inner ports; existing keys stay.

    Raises:
        StorageError: the keys cannot be written.
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    # the server adds options of earlier starts, such as a port for metrics
    (folder / "mini.options").unlink(missing_ok=True)
    write_configuration(keys_folder(folder))


def keys_folder(folder: Path) -> Path:
    """The folder of the server's ``security.toml``."""
    return folder / "tls"


def server_argv(
    program: str, folder: Path, ports: Mapping[str, int], *, buckets: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Command of a server on loopback in a folder made by :func:`prepare_folder`.

    Args:
        ports: by the names in ``PORTS``; others are ignored.
        buckets: created at the start.
    """
    return (
        program,
        f"-config_dir={keys_folder(folder)}",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{_flag(name)}={ports[name]}" for name in PORTS),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        f"-s3.localSocket={folder}/s3.sock",
        f"-filer.localSocket={folder}/filer.sock",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        *([f"-bucket={','.join(buckets)}"] if buckets else []),
    )


def shell_argv(program: str, ports: Mapping[str, int], *, keys: Path | None) -> tuple[str, ...]:
    """Command of SeaweedFS's shell, which takes its commands from standard input.

    Args:
        keys: folder of ``security.toml``: :func:`keys_folder` of the server's folder.
    """
    return (
        program,
        *([f"-config_dir={keys}"] if keys else []),
        "shell",
        f"-master=127.0.0.1:{ports['master']}.{ports['master-grpc']}",
        f"-filer=127.0.0.1:{ports['filer']}.{ports['filer-grpc']}",
    )


def problem(
    endpoint_url: str, access_key: str, secret_key: str, buckets: Collection[str] = ()
) -> str | None:
    """None if a signed request is answered and the buckets exist, else the problem."""
    from mirnet.storage.s3session import list_buckets

    try:
        found = list_buckets(endpoint_url, access_key, secret_key)
    except StorageError as error:
        return str(error)
    return None if set(buckets) <= set(found) else f"it has the buckets {found}"


def _flag(port: str) -> str:
    part, dash, kind = port.partition("-")
    return f"{part}.port.{kind}" if dash else f"{part}.port"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def require_free(port: int) -> None:
    """Refuse a port of loopback that something listens on.

    Raises:
        ServiceError: it is in use.
    """
    with socket.socket() as probe:
        # as the server does: a port of a server that has just ended can be used again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"127.0.0.1:{port} is in use: name another port with --port", transient=False
            ) from error


def usual_port() -> int:
    """The port 8333 of SeaweedFS, or a free one where another server has it, such as a stack's."""
    try:
        require_free(USUAL_PORT)
    except ServiceError:
        return free_ports(1)[0]
    return USUAL_PORT


def free_ports(count: int) -> list[int]:
    """Free ports of loopback, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
