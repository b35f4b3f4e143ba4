from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from mirnet.batch.manifest import Row
from mirnet.batch.provenance import from_metadata, single_records, to_metadata, trace
from mirnet.batch.run import run_batch
from mirnet.cli import app
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.params import EnhanceParams
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, double, fill, picture


def enhance(source: str, target: str, settings: Settings) -> None:
    params = EnhanceParams(max_bad_share=1.0)
    run_batch(source, target, enhance=double, model=MODEL, params=params, settings=settings)


def test_output_and_quarantined_copy_know_where_they_came_from(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {"a/b.png": picture(1), "cut.png": picture(2)[:700]})
    enhance(source, target, settings)
    version = open_store(source, settings).head("a/b.png")
    assert version is not None
    row = trace(f"{target}/a/b.png", settings).row
    assert (row.input_key, row.input_version) == ("a/b.png", version.version)
    assert (row.model_name, row.model_version, row.model_run_id) == ("mirnet", "3", "run-1")
    assert (row.data_digest, row.git_commit) == (MODEL.data_digest, "c0ffee")
    assert trace(f"{target}/a/b.png", settings).input_address == f"{source}/a/b.png"
    bad = trace(f"{target}/_mirnet/quarantine/cut.png", settings).row
    assert (bad.status, bad.reason, bad.input_key) == ("quarantined", "truncated", "cut.png")
    with pytest.raises(StorageError, match="no such object"):
        trace(f"{target}/nothing.png", settings)
    fill(target, {"a/b.png": b"edited since"})
    with pytest.raises(StorageError, match="no record of MIRNet"):
        trace(f"{target}/a/b.png", settings)


def test_single_file(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in.png").write_bytes(picture(1))
    enhance(str(tmp_path / "in.png"), str(tmp_path / "out.png"), settings)
    origin = trace(str(tmp_path / "out.png"), settings)
    assert (origin.row.input_key, origin.input_address) == ("in.png", str(tmp_path / "in.png"))


def test_source_is_known_after_a_kill(
    places: tuple[str, str], settings: Settings, tmp_path: Path
) -> None:
    """A kill leaves no summary."""
    source, target = places
    fill(source, {"a/b.png": picture(1)})
    enhance(source, target, settings)
    run_id = trace(f"{target}/a/b.png", settings).row.run_id
    open_store(f"{target}/_mirnet/runs/{run_id}", settings).delete("summary.json")
    assert trace(f"{target}/a/b.png", settings).input_address == f"{source}/a/b.png"

    one, output = str(tmp_path / "one.png"), str(tmp_path / "one-bright.png")
    (tmp_path / "one.png").write_bytes(picture(1))
    enhance(one, output, settings)
    (summary,) = Path(single_records(output, settings)).glob("runs/*/summary.json")
    summary.unlink()
    assert trace(output, settings).input_address == one


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "workspace").mkdir()
    settings = Settings()
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    enhance(str(tmp_path / "in"), str(tmp_path / "out"), settings)
    arguments = ["lineage", str(tmp_path / "out" / "a.png"), "--json"]

    def facts() -> dict[str, Any]:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    assert facts()["gate"].startswith("not known")
    client = MlflowClient(settings.mlflow_uri)
    client.create_registered_model("mirnet")
    for number in (1, 2, 3):
        client.create_model_version("mirnet", str(tmp_path), tags={"mirnet.gate": f"ok {number}"})
    found = facts()
    assert found["gate"].startswith("ok 3")
    assert (found["model version"], found["MLflow run"]) == ("3", "run-1")
    assert found["input"] == str(tmp_path / "in" / "a.png")
    text = CliRunner().invoke(app, arguments[:2], catch_exceptions=False).stdout
    assert "data digest" in text
    assert MODEL.data_digest in text


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
UNIT = st.none() | st.floats(0, 1)


@given(
    key=TEXT,
    reason=st.none() | TEXT,
    version=st.none() | TEXT,
    luminance=UNIT,
    width=st.none() | st.integers(1, 10**6),
)
def test_metadata_is_ascii_small_and_reversible(
    key: str, reason: str | None, version: str | None, luminance: float | None, width: int | None
) -> None:
    row = Row(
        input_key=key,
        input_version="v",
        input_size=0,
        status="enhanced",
        run_id="r",
        settings_digest="d",
        model_name="mirnet",
        model_version=version,
        reason=reason,
        luminance_before=luminance,
        width=width,
    )
    metadata = to_metadata(row)
    assert all((name + value).isascii() for name, value in metadata.items())
    origin = from_metadata(metadata)
    assert origin is not None
    assert origin.row == row
    assert origin.is_of(key, "any")  # it does not say from where


def test_long_keys_are_carried_by_hash_and_strangers_have_no_record() -> None:
    key = "夜" * 300
    row = Row(key, "v", 0, "enhanced", "r", "d", "mirnet")
    metadata = to_metadata(row)
    assert sum(len(name) + len(value) for name, value in metadata.items()) < 2048
    origin = from_metadata(metadata)
    assert origin is not None
    assert origin.is_of(key, "any")  # it does not say from where
    assert not origin.is_of(key + "x", "any")
    assert from_metadata({}) is None
    assert from_metadata({"mirnet-input-key": "a"}) is None
