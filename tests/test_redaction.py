"""What is shown of names and addresses from outside: no secrets, no control characters."""

from __future__ import annotations

import io
import json
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest
from rich.table import Table

from mirnet.cli.terminal import SafeConsole
from mirnet.config import Settings, load_settings, name_variables
from mirnet.errors import DataError, ImageError, StorageError, UsageError
from mirnet.logs import protect_output
from mirnet.redaction import (
    escaped,
    has_secret,
    redacted,
    shown,
    shown_json,
    shown_lines,
    without_user,
)

PLANTED = "Zq7planted9Xw"
HOSTILE = (
    f"a\r\n2026-01-01 INFO all well\x1b]8;;http://evil\x07\x9b31m\u202egpj.\u2028[red] {PLANTED}"
)


@pytest.mark.parametrize(
    "address",
    [
        f"https://ann:{PLANTED}@mlflow.example:5000/api",
        f"https://{PLANTED}@github.com/team/photos.git",
        f"s3://AKIA:{PLANTED}@bucket/prefix",
        f"s3://AKIA:a/{PLANTED}+b@bucket/prefix",
        f"postgresql+asyncpg://prefect:p/{PLANTED}#x@host:5432/prefect",
        f"https://b.s3.amazonaws.com/k.png?X-Amz-Credential=A&X-Amz-Signature={PLANTED}",
        f"https://host/x?anything={PLANTED}",
        f"https://host/callback#access_token={PLANTED}",
        f"connection refused for url: /api/runs?token={PLANTED}&max=1",
        f"host=db user=mirnet password={PLANTED} dbname=x",
        f"AWS_SECRET_ACCESS_KEY={PLANTED}",
        f"{{'user': 'x', 'password': '{PLANTED}'}}",
        f"'Authorization': 'Bearer {PLANTED}'",
    ],
)
def test_no_secret_of_an_address_is_left(address: str) -> None:
    for text in (address, f"at {address}: refused", f"({address!r})"):
        assert PLANTED not in redacted(text)
        assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://photos/2026/lens@2x.png",
        "http://127.0.0.1:4200/runs/a@b",
        "models:/mirnet@champion",
        "sqlite:////home/ann/a@b/mlflow.db",
        "git@github.com:team/photos",
        "/home/ann/photos?/token.png",
        "train.seed=1 key=4 num_workers=3",
        "no password: set MLFLOW_TRACKING_PASSWORD",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
    assert not has_secret(text)


def test_a_hostile_text_costs_no_quadratic_time() -> None:
    # each took minutes with unbounded patterns
    for part in ("://", "http://", "://a:b", "token", "?key", ".-", "password = "):
        assert redacted(part * (20_000 // len(part)))


def test_secrets_of_the_environment_are_known_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"admin:{PLANTED}2")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"postgresql://a:{PLANTED}3@h/d")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "short")
    load_settings()
    text = f"driver says {PLANTED}, {PLANTED}2 and {PLANTED}3 are wrong, and short"
    assert redacted(text) == "driver says ***, *** and *** are wrong, and short"


def test_names_are_shown_on_one_line() -> None:
    text = escaped(HOSTILE)
    assert text.isprintable()
    assert text.startswith(r"a\r\n2026")
    assert r"\x1b]8;;" in text and r"\x9b31m" in text and r"\u202e" in text and r"\u2028" in text


def test_further_lines_cannot_pass_for_entries() -> None:
    assert shown_lines("Traceback\n  File\nValueError: x\nERROR forged\n").split("\n") == [
        "Traceback",
        "    File",
        "  ValueError: x",
        "  ERROR forged",
    ]


def test_json_stays_json() -> None:
    value = {"key": HOSTILE + "\x7f\ud800", "list": [1, None, "é🌙"], "url": "http://a:b@c/\\"}
    text = shown_json(value, indent=2)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert json.loads(text) == value | {"url": "http://***@c/\\"}


def test_a_link_works_without_its_user() -> None:
    assert without_user("https://ann:pw@host/#/runs/1") == "https://host/#/runs/1"


@pytest.mark.parametrize("kind", [DataError, UsageError, StorageError])
def test_errors_quote_nothing_secret(kind: type[Exception]) -> None:
    error = kind(f"s3://a:{PLANTED}@b/{HOSTILE}: https://h/?t={PLANTED}")
    assert str(error).count(PLANTED) == 1  # the name itself, which is no secret
    assert str(error).isprintable()
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)


def test_errors_keep_what_they_carry() -> None:
    assert ImageError("a\nb", reason="truncated").reason == "truncated"
    assert not StorageError("x", transient=False).transient


@pytest.fixture
def protected() -> Iterator[io.StringIO]:
    before = logging.getLogRecordFactory()
    protect_output()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize("name", ["mirnet.batch", "prefect.flow_runs", "sqlalchemy.engine"])
def test_every_logger_of_the_process_is_safe(
    protected: io.StringIO, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow's migrations of its database, in another test, turn it off or to a handler of its own
    monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    protect_output()  # twice is once
    try:
        raise ConnectionError(f"http://a:{PLANTED}@b/\nERROR forged\x1b[2J")
    except ConnectionError as error:
        logging.getLogger(name).exception("%s failed: %s", "x\ny", error)
    written = protected.getvalue()
    assert PLANTED not in written and "\x1b" not in written and "ConnectionError" in written
    entries = [line for line in written.splitlines() if not line.startswith("  ")]
    assert len(entries) == 2 and entries[1].startswith("Traceback")


def test_a_record_whose_arguments_do_not_fit_is_safe(protected: io.StringIO) -> None:
    logging.getLogger("mirnet").warning("%d of %s", f"http://a:{PLANTED}@b")
    assert "***" in protected.getvalue() and PLANTED not in protected.getvalue()


def test_tables_and_lines_show_names_as_they_are() -> None:
    console = SafeConsole()
    console.file = stream = io.StringIO()
    console.width = 400
    table = Table(HOSTILE, title="[bold]:smile:")
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, f"https://{PLANTED}@h")
    text = stream.getvalue()
    assert text.count("[red]") == 3 and "[bold]:smile:" in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.count(PLANTED) == 3


def test_a_bad_variable_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3_TIMEOUT_S", "BATCH_ENGINE", "NUM_WORKERS", "COMPILE", "CURRENCY"):
        with monkeypatch.context() as patch:
            patch.setenv(f"MIRNET_{name}", PLANTED)
            with pytest.raises(UsageError, match=f"MIRNET_{name}: ") as caught:
                load_settings()
            assert PLANTED not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["s3_endpoint_url", "artifact_uri", "storage_uri"])
def test_places_of_the_settings_carry_no_credentials(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MIRNET_{name.upper()}", f"https://key:{PLANTED}@store.example")
    with pytest.raises(UsageError, match="credentials belong in AWS_ACCESS_KEY_ID") as caught:
        load_settings()
    assert PLANTED not in str(caught.value)
    monkeypatch.setenv(f"MIRNET_{name.upper()}", "https://store.example:9000")
    assert getattr(load_settings(), name) == "https://store.example:9000"


def test_a_refused_variable_of_aws_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mirnet.storage.places import open_store

    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_RETRY_MODE", "AWS_ENDPOINT_URL"):
        with monkeypatch.context() as patch:
            patch.setenv(name, f"{PLANTED}_")
            if name == "AWS_RETRY_MODE":
                assert name_variables(f"bad {PLANTED}_") == "bad $AWS_RETRY_MODE"
                continue
            with pytest.raises(StorageError) as caught:
                open_store("s3://bucket/x", Settings())
            assert name in str(caught.value) and PLANTED not in str(caught.value)


def test_a_fault_of_ours_shows_no_secret() -> None:
    code = (
        "import threading\n"
        "from mirnet.logs import protect_output\n"
        "protect_output()\n"
        "def fail():\n"
        f"    raise ValueError('http://a:' + {PLANTED[:6]!r} + {PLANTED[6:]!r} + '@b/\\x1b[2J')\n"
        "thread = threading.Thread(target=fail)\n"
        "thread.start()\n"
        "thread.join()\n"
        "fail()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count(r"ValueError: http://***@b/\x1b[2J") == 2
    assert PLANTED not in done.stderr and "\x1b" not in done.stderr


def test_shown_is_both() -> None:
    assert shown("s3://a:b@c/\n") == r"s3://***@c/\n"
