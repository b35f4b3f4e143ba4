"""A real MLflow server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mirnet.config import child_environment
from mirnet.storage.s3server import free_ports

PATIENCE_S = 240


@dataclass
class Server:
    """A server that can be killed and started again on the same port, over the same store."""

    store_uri: str
    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.store_uri]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=child_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # a group of its own, so that a kill takes the worker along
            start_new_session=True,
        )
        for _ in range(PATIENCE_S * 2):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.5)
        raise TimeoutError(f"no MLflow server on {self.address} after {PATIENCE_S} s")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server and its worker; nothing if it is down already."""
        if self.process is not None:
            os.killpg(self.process.pid, number)
            self.process.wait(timeout=60)
            self.process = None


@contextmanager
def mlflow_server(store_uri: str, folder: Path) -> Iterator[Server]:
    """A server for the time of a block."""
    server = Server(store_uri, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
