"""Separate hosts on one machine: network namespaces on a bridge, each with its own address."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Self

NETWORK = "10.77.0"
OUTSIDE = f"{NETWORK}.254"  # this machine, as the hosts see it
DEVICE = "eth0"  # its name inside every host


def missing() -> str | None:
    """Why no hosts can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = f"mt{os.getpid()}p"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode != 0:
        return f"no network namespace can be made: {done.stderr.strip()}"
    _ip("netns", "del", probe)
    return None


class Hosts:
    """Hosts 1 to ``count`` with the addresses ``NETWORK.1`` and on; all end with the block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._name = f"mt{os.getpid() % 100_000}"

    def __enter__(self) -> Self:
        bridge = f"{self._name}b"
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{OUTSIDE}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in range(1, self._count + 1):
            space, cable = self._space(host), self._cable(host)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", DEVICE, "netns", space)
            _ip("link", "set", cable, "master", bridge, "up")
            _ip("-n", space, "addr", "add", f"{address(host)}/24", "dev", DEVICE)
            _ip("-n", space, "link", "set", DEVICE, "up")
            _ip("-n", space, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in range(1, self._count + 1):
            self.kill(host)
            _ip("netns", "del", self._space(host))
        _ip("link", "del", f"{self._name}b")

    def start(
        self, host: int, command: list[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Run a command on a host."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._space(host), *command],
            env=dict(environment),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, host: int) -> None:
        """The host loses power."""
        for _ in range(3):  # what is just being started is found in the next round
            for pid in _ip("netns", "pids", self._space(host)).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it went with its parent

    def cut(self, host: int) -> None:
        """Pull its cable."""
        _ip("link", "set", self._cable(host), "down")

    def mend(self, host: int) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable(host), "up")

    def _space(self, host: int) -> str:
        return f"{self._name}n{host}"

    def _cable(self, host: int) -> str:
        return f"{self._name}v{host}"


def address(host: int) -> str:
    """Of a host, on the bridge."""
    return f"{NETWORK}.{host}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
