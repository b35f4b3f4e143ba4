"""The command that makes MLflow's account in containers, against a server that says what it got."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mirnet.stack.mlflow_user import main


class _Users(BaseHTTPRequestHandler):
    """Answers as MLflow 3.17 does (seen in the stack test)."""

    def do_POST(self) -> None:
        login = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known: dict[str, str] = self.server.users  # type: ignore[attr-defined]
        if login != "admin:right":
            return self._say(401, {})
        if user["username"] in known:
            return self._say(400, {"error_code": "RESOURCE_ALREADY_EXISTS"})
        known[user["username"]] = user["password"]
        return self._say(200, {})

    def _say(self, status: int, answer: dict[str, str]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = HTTPServer(("127.0.0.1", 0), _Users)
    known: dict[str, str] = {}
    server.users = known  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MIRNET_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_ADMIN_PASSWORD", "right")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "pipeline")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    yield known
    server.shutdown()
    server.server_close()


def test_the_account_is_made_once(users: dict[str, str]) -> None:
    assert main() == 0
    assert main() == 0
    assert users == {"pipeline": "secret"}


def test_a_wrong_password_and_a_missing_variable_fail_in_a_line(
    users: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ADMIN_PASSWORD", "wrong")
    assert main() == 1
    assert "HTTP 401" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    assert main() == 2
    assert "MLFLOW_TRACKING_PASSWORD" in capsys.readouterr().err
    assert users == {}


def test_a_server_that_is_not_there_yet_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_TRACKING_URI", "http://127.0.0.1:1")
    for name in ("ADMIN_PASSWORD", "TRACKING_USERNAME", "TRACKING_PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_{name}", "x")
    assert main() == 1
