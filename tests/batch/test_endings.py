"""What is refused at the end of a run does not cost its records; quarantined copies are exact."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from mirnet.batch import contact_sheet
from mirnet.batch.ledger import Ledger, RunFolder
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.stages.enhancing import read_contact
from mirnet.stages.run import load_run_config
from mirnet.storage.places import open_store
from mirnet.storage.s3 import S3Store
from mirnet.storage.store import Blob, ObjectChanged, ObjectRefused, Store
from tests.batch.samples import MODEL, double, enhance_batch, fill, picture

PICTURES = {f"{n}.png": picture(n) for n in range(4)}


def refuse(*_: object, **__: object) -> None:
    raise StorageError("refused", transient=False)


def statuses(target: str, settings: Settings) -> dict[str, str]:
    past = Ledger.of_target(open_store(target, settings)).past_runs()
    assert all(any(name == "summary.json" for name in names) for names in past.names.values())
    return {row.input_key: row.status for row in past.rows()}


@pytest.mark.parametrize(
    "method", ["write_page", "rejected", "delete", "write_manifest", "write_part", "read"]
)
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_refusal_at_the_end_costs_no_summary(
    method: str, format: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES | {"cut.png": b"x"})
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, method, refuse)
        result = enhance_batch(source, target, settings, manifest_format=format)
    assert (result.enhanced, result.quarantined) == (4, 1)
    assert result.summary_uri is not None
    assert json.loads(Path(result.summary_uri).read_text())["status"] == "completed"
    assert statuses(target, settings) == dict.fromkeys(PICTURES, "enhanced") | {
        "cut.png": "quarantined"
    }
    assert (result.contact_uri is None) == (method in ("write_page", "rejected"))
    assert enhance_batch(source, target, settings).skipped == 5


def test_an_image_that_cannot_be_read_again_costs_no_summary(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES)

    def breaks(*_: object, **__: object) -> None:
        raise OSError("a decoder failed")

    monkeypatch.setattr(contact_sheet, "decode", breaks)
    assert enhance_batch(source, target, settings).contact_uri is not None


def with_flush(
    source: str, target: str, settings: Settings, spoil: Callable[[Store], None]
) -> EnhanceResult:
    """A run that writes a part per row; ``spoil`` is called with its folder before the last."""
    done = []

    def progress(number: int, todo: int) -> None:
        done.append(number)
        if number == todo:
            runs = open_store(f"{target}/_mirnet/runs", settings)
            (run_id,) = {info.key.partition("/")[0] for info in runs.list()}
            spoil(runs.child(run_id))

    return run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        params=EnhanceParams(contact_images=0),
        settings=settings.model_copy(update={"flush_s": 0.0}),
        progress=progress,
    )


@pytest.mark.parametrize("data", [None, b"", b"PAR1 not ours"])
def test_a_part_that_was_changed_is_left_out_and_named(
    data: bytes | None, tmp_path: Path, settings: Settings
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES)

    def spoil(run: Store) -> None:
        if data is None:
            run.delete("part-000000.parquet")
        else:
            run.put("part-000000.parquet", data)

    result = with_flush(source, target, settings, spoil)
    assert result.summary_uri is not None
    summary = json.loads(Path(result.summary_uri).read_text())
    (damaged,) = summary["damaged_parts"]
    assert damaged.endswith("/part-000000.parquet")
    if data is not None:
        assert Path(damaged).read_bytes() == data
    assert len(statuses(target, settings)) == 3
    again = enhance_batch(source, target, settings)
    assert (again.skipped, again.enhanced) == (3, 1)
    assert statuses(target, settings) == dict.fromkeys(PICTURES, "enhanced")


def test_reports_that_cannot_be_written_cost_no_result(tmp_path: Path, settings: Settings) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES)
    result = enhance_batch(source, target, settings)
    assert result.contact_uri is not None
    run = load_run_config("cpu")
    assert "<h1>" in (read_contact(result, run) or "")
    Path(result.contact_uri).unlink()
    assert read_contact(result, run) is None


def test_the_quarantine_holds_the_version_that_was_read(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places
    fill(source, {"a.png": b"bad"})
    kind = type(open_store(source, settings))
    usual = kind.get

    def replaced_after_it_was_read(store: Store, key: str) -> Blob:
        blob: Blob = usual(store, key)
        if key == "a.png":
            store.put(key, picture(1))
        return blob

    with monkeypatch.context() as patch:
        patch.setattr(kind, "get", replaced_after_it_was_read)
        assert enhance_batch(source, target, settings).quarantined == 1
    assert open_store(target, settings).get("_mirnet/quarantine/a.png").data == b"bad"
    assert enhance_batch(source, target, settings).enhanced == 1


def test_what_is_copied_unread_is_the_version_that_was_listed(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large an object is not downloaded."""
    source, target = places
    fill(source, {"a.png": b"x" * 100})
    kind = type(open_store(source, settings))
    usual = kind.head

    def replaced_before_the_copy(store: Store, key: str) -> Any:
        found = usual(store, key)
        if key == "a.png" and "quarantine" in store.uri:
            open_store(source, settings).put(key, b"y" * 50)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(kind, "head", replaced_before_the_copy)
        result = enhance_batch(source, target, settings, max_bytes=10, max_bad_share=1)
    assert (result.failed, result.reasons) == (1, {"too-large; quarantine": 1})
    assert open_store(target, settings).head("_mirnet/quarantine/a.png") is None
    assert enhance_batch(source, target, settings, max_bytes=10).quarantined == 1
    assert open_store(target, settings).get("_mirnet/quarantine/a.png").data == b"y" * 50


def test_a_copy_of_another_version_is_refused(places: tuple[str, str], settings: Settings) -> None:
    source, target = (open_store(place, settings) for place in places)
    old = source.put("a.png", b"old")
    source.put("a.png", b"newer")
    with pytest.raises(ObjectChanged, match=r"a\.png: changed since"):
        target.copy_from(source, "a.png", "b.png", metadata={}, version=old)
    assert target.head("b.png") is None


def test_an_earlier_copy_outlives_a_copy_of_what_changes(s3: str, settings: Settings) -> None:
    """The input is replaced while it is copied."""
    source, target = open_store(f"{s3}/in", settings), open_store(f"{s3}/out", settings)
    assert isinstance(source, S3Store) and isinstance(target, S3Store)
    changed = []

    def replace(**_: object) -> None:
        if changed:
            changed.pop()
            source.put("a.png", b"third, larger")

    for event in ("CopyObject", "GetObject"):
        for store in (source, target):
            store._client.meta.events.register(f"before-send.s3.{event}", replace)
    target.put("a.png", b"earlier", metadata={"mirnet-x": "1"})
    version = source.put("a.png", b"second", content_type="image/x-one")
    changed.append(True)
    with pytest.raises(ObjectChanged, match=r"a\.png: changed since"):
        target.copy_from(source, "a.png", "a.png", metadata={"mirnet-x": "2"}, version=version)
    assert not changed
    there = target.get("a.png")
    assert (there.data, dict(there.metadata)) == (b"earlier", {"mirnet-x": "1"})

    version = source.put("a.png", b"fourth", content_type="image/x-one")
    target.copy_from(source, "a.png", "a.png", metadata={"mirnet-x": "2"}, version=version)
    there = target.get("a.png")
    assert (there.data, dict(there.metadata)) == (b"fourth", {"mirnet-x": "2"})
    assert there.content_type == "image/x-one"


def test_quarantined_copies_keep_their_content_type(s3: str, settings: Settings) -> None:
    store = open_store(s3, settings)
    assert isinstance(store, S3Store)
    client = boto3.client("s3", endpoint_url=store.endpoint)
    source, target = open_store(f"{s3}/in", settings), open_store(f"{s3}/out", settings)
    source.put("cut.jpg", b"x", content_type="image/x-one")
    source.put("large.tif", b"x" * 100, content_type="image/x-two")
    enhance_batch(f"{s3}/in", f"{s3}/out", settings, max_bytes=10, max_bad_share=1)
    found = {
        key: client.head_object(Bucket=store.bucket, Key=f"{store.prefix}{place}")["ContentType"]
        for key, place in {
            "cut.jpg": "out/_mirnet/quarantine/cut.jpg",
            "large.tif": "out/_mirnet/quarantine/large.tif",
        }.items()
    }
    assert found == {"cut.jpg": "image/x-one", "large.tif": "image/x-two"}
    assert target.get("_mirnet/quarantine/large.tif").content_type == "image/x-two"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_new_files_keep_the_umask(
    umask: int, mode: int, tmp_path: Path, settings: Settings
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    fill(str(source), PICTURES | {"cut.png": b"x", "large.png": b"x" * 5000})
    before = os.umask(umask)
    try:
        enhance_batch(str(source), str(target), settings, max_bytes=4500, max_bad_share=1)
    finally:
        os.umask(before)
    files = [path for path in target.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


def test_an_archived_input_is_no_reason_to_lose_the_page(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES)
    page = contact_sheet.ContactSheet.render

    def archived(sheet: contact_sheet.ContactSheet, source: Store, *rest: Any, **more: Any) -> str:
        def get(_: str) -> Blob:
            raise ObjectRefused("archived since", transient=False)

        monkeypatch.setattr(source, "get", get)
        return page(sheet, source, *rest, **more)

    monkeypatch.setattr(contact_sheet.ContactSheet, "render", archived)
    assert enhance_batch(source, target, settings).contact_uri is not None
