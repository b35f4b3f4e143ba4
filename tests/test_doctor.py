"""``mirnet doctor`` and the file for Prometheus: what they find, with real servers."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from mirnet import doctor
from mirnet.cli import app
from mirnet.config import Settings
from mirnet.telemetry import Gauge, render, write_textfile


class _Late(BaseHTTPRequestHandler):
    date: ClassVar[str] = "Tue, 01 Jan 2019 00:00:00 GMT"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002
        return self.date

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def late_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_clock_that_is_off_is_found(late_server: str) -> None:
    check = doctor.check_clock(Settings(s3_endpoint_url=late_server))
    assert check.outcome == "failed"
    assert "chrony" in check.advice


def test_no_server_no_clock() -> None:
    assert doctor.check_clock(Settings()).outcome == "skipped"


def test_the_environment_of_the_lock_is_fit() -> None:
    assert doctor.check_packages(Settings()).outcome == "ok"


def test_a_package_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        "mirnet.doctor.importlib.metadata.version",
        lambda name: "0.160.0" if name == "fastapi" else real(name),
    )
    check = doctor.check_packages(Settings())
    assert check.outcome == "failed"
    assert "fastapi 0.160.0, wanted fastapi<0.15" in check.found


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr("mirnet.doctor.shutil.disk_usage", lambda _: usage)
    check = doctor.check_disk(Settings(workspace=tmp_path / "not" / "yet"))
    assert check.outcome == "failed"
    assert "MIRNET_WORKSPACE" in check.advice


def test_absent_servers_are_said_with_address_and_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Settings(tracking_uri="http://127.0.0.1:1", ray_address="127.0.0.1:1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    for check in (
        doctor.check_mlflow(gone),
        doctor.check_ray(gone),
        doctor.check_prefect(gone),
    ):
        assert check.outcome == "failed", check
        assert "127.0.0.1:1" in check.found
        assert check.advice


def test_a_refused_login_is_said(late_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{late_server}/api")
    check = doctor.check_prefect(Settings())
    assert check.outcome == "failed"
    assert "PREFECT_API_AUTH_STRING" in check.advice


def test_the_command_ends_with_1_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "127.0.0.1:1")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    outcomes = {check["name"]: check["outcome"] for check in json.loads(done.stdout)}
    assert outcomes["ray"] == "failed"
    assert (outcomes["mlflow"], outcomes["python"]) == ("skipped", "ok")


def test_prometheus_reads_what_is_written(tmp_path: Path) -> None:
    gauges = [
        Gauge("mirnet_check", "0 fine, 2 failed", 2.0, {"check": 'a "b"\n\\c'}),
        Gauge("mirnet_check", "0 fine, 2 failed", 0.0, {"check": "disk"}),
        Gauge("mirnet_age_seconds", "age", 1.5e9),
    ]
    path = write_textfile(tmp_path / "out" / "mirnet.prom", gauges)
    families = {f.name: f for f in text_string_to_metric_families(path.read_text())}
    samples = {s.labels["check"]: s.value for s in families["mirnet_check"].samples}
    assert samples == {'a "b"\n\\c': 2.0, "disk": 0.0}
    assert families["mirnet_age_seconds"].samples[0].value == 1.5e9
    assert path.stat().st_mode & 0o777 == 0o644
    assert render(gauges).count("# TYPE mirnet_check gauge") == 1
