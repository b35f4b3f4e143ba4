"""Ceph's S3 gateway with one monitor and one object store in memory, where Debian's packages
``radosgw``, ``ceph-mon`` and ``ceph-osd`` are installed. Up in half a minute.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Self

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from mirnet.storage.s3server import free_ports

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}
keyring = {folder}/keyring
log file = {folder}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 0
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
[client.admin]
rgw frontends = beast endpoint=127.0.0.1:{s3}
rgw run sync thread = false
"""
_ENTITIES = ("client.admin", "osd.0")
_CAPS = [word for what in ("mon", "osd") for word in ("--cap", what, "allow *")]


class CephServer:
    """``with CephServer(folder, bucket="test") as server:`` has ``environment``, as S3Server."""

    def __init__(self, folder: Path, *, bucket: str) -> None:
        for program in ("radosgw", "ceph-mon", "ceph-osd"):
            if shutil.which(program) is None:
                pytest.skip(f"no {program} on this machine")
        self.folder, self.bucket = folder, bucket
        self.secret_key = secrets.token_hex(20)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "MIRNET_S3_ENDPOINT_URL": self.endpoint_url,
        }

    def _start(self) -> None:
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        mon, mon_v1, s3 = free_ports(3)
        self.endpoint_url = f"http://127.0.0.1:{s3}"
        (self.folder / "mon").mkdir()
        (self.folder / "osd").mkdir()
        text = _CONFIGURATION.format(fsid=fsid, folder=self.folder, mon=mon, mon_v1=mon_v1, s3=s3)
        (self.folder / "ceph.conf").write_text(text)
        keyring, monmap = str(self.folder / "keyring"), str(self.folder / "monmap")
        tool = ["ceph-authtool", keyring, "--gen-key"]
        self._run(*tool, "--create-keyring", "-n", "mon.", "--cap", "mon", "allow *")
        for entity in _ENTITIES:
            self._run(*tool, "-n", entity, *_CAPS)
        addresses = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "-i", "a")
        self._run("ceph", "osd", "new", osd, "0")
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-i", "0")
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=h")
        keys = ("--access-key=tests", f"--secret-key={self.secret_key}")
        self._run("radosgw-admin", "user", "create", "--uid=t", "--display-name=t", *keys)
        self._daemon("radosgw")
        self._make_bucket()

    def _run(self, program: str, *words: str) -> None:
        command = [program, *words]
        if program not in ("ceph-authtool", "monmaptool"):
            command[1:1] = ["-c", str(self.folder / "ceph.conf")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (command, done.stderr)

    def _daemon(self, program: str, *words: str) -> None:
        command = [program, "-c", str(self.folder / "ceph.conf"), "-f", *words]
        with (self.folder / f"{program}.out").open("wb") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out))

    def _make_bucket(self) -> None:
        client = boto3.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id="tests",
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        for _ in range(120):
            try:
                client.create_bucket(Bucket=self.bucket)
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.5)
        raise AssertionError((self.folder / "radosgw.out").read_text()[-2000:])
