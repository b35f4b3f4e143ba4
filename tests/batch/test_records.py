"""Records that somebody has changed cost one image or are named; never a traceback."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirnet.batch.lease import Lease
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row, dump_rows
from mirnet.batch.provenance import from_metadata, to_metadata, trace
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, enhance_batch, fill, picture

DEEP = b"[" * 100_000
ROW = Row("a.png", "v", 1, "enhanced", "00000001-x", "d", "mirnet", output_key="a.png")
LEASE = {"term": 1, "run_id": "r", "holder": "h", "lease_s": 1.0}
RUN = "00000001-x"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("width", "abc"),
        ("width", "1" * 25),
        ("width", "1" * 5000),
        ("height", "-1"),
        ("noise", "nan"),
        ("luminance-before", "1e999"),
        ("status", "perfect"),
        ("run-id", None),
    ],
)
def test_a_damaged_record_of_an_output_costs_one_image(
    column: str, value: str | None, places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {f"{n}.png": picture(n) for n in range(3)})
    enhance_batch(source, target, settings)
    store = open_store(target, settings)
    blob = store.get("1.png")
    poisoned = {key: text for key, text in blob.metadata.items() if key != f"mirnet-{column}"}
    if value is not None:
        poisoned[f"mirnet-{column}"] = value
    store.put("1.png", blob.data, metadata=poisoned)
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    result = enhance_batch(source, target, settings)
    assert (result.enhanced, result.failed, result.reasons) == (2, 1, {"conflict": 1})
    with pytest.raises(StorageError, match="changed or damaged since"):
        trace(f"{target}/1.png", settings)


@pytest.mark.parametrize("data", [b"[]", DEEP, b'{"1-1": []}', b'{"1-1": {"a": 1}}', b"\xff"])
def test_a_damaged_sidecar_costs_one_image(data: bytes, tmp_path: Path, settings: Settings) -> None:
    source, target = str(tmp_path / "in"), tmp_path / "out"
    fill(source, {f"{n}.png": picture(n) for n in range(3)})
    enhance_batch(source, str(target), settings)
    sidecar = next((target / "_mirnet" / "meta").rglob("*.json"))
    sidecar.write_bytes(data)
    result = enhance_batch(source, str(target), settings, strength=0.5)
    assert (result.enhanced, result.failed, result.reasons) == (2, 1, {"conflict": 1})


def parquet(**columns: Any) -> bytes:
    values = json.loads(dump_rows([ROW], "jsonl")) | columns
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [value] for name, value in values.items()}), buffer)
    return buffer.getvalue()


def line(**columns: Any) -> bytes:
    return json.dumps(json.loads(dump_rows([ROW], "jsonl")) | columns).encode()


def thrift() -> bytes:
    """A file whose footer cannot be parsed."""
    data = bytearray(parquet())
    data[-60:-8] = b"\xff" * 52
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("lease.json", b"[]"),
        ("lease.json", DEEP),
        ("lease.json", json.dumps(LEASE | {"term": "1"}).encode()),
        ("lease.json", json.dumps(LEASE | {"term": 10**25}).encode()),
        ("lease.json", json.dumps(LEASE | {"lease_s": "1"}).encode()),
        ("lease.json", b'{"term": 1, "run_id": "r", "holder": "h", "lease_s": Infinity}'),
        ("lease.json", b'{"term": 1, "run_id": "r", "holder": "h", "lease_s": 1e999}'),
        ("lease.json", json.dumps(LEASE | {"released": "no"}).encode()),
        ("lease.json", json.dumps(LEASE | {"pid": 10**25}).encode()),
        ("in-hand.json", b"[]" + b" " * 17 * 2**20),
        ("conditions.json", b'{"model": "m", "settings_digest": "d"}' + b" " * 17 * 2**20),
        ("in-hand.json", b"3"),
        ("in-hand.json", b'{"a.png": "1"}'),
        ("in-hand.json", b'[["a.png", 1]]'),
        ("in-hand.json", b'[["\\ud800", "1"]]'),
        ("in-hand.json", DEEP),
        ("conditions.json", b"[]"),
        ("conditions.json", DEEP),
        ("conditions.json", b'{"model": "m", "settings_digest": "d", "sizes": [[1, "x"]]}'),
        ("conditions.json", b'{"model": 1, "settings_digest": "d"}'),
        ("max-pixels.json", b'"1"'),
        ("max-pixels.json", b"1" * 25),
        ("max-pixels.json", DEEP),
        ("part-000000.jsonl", DEEP),
        ("part-000000.jsonl", line(input_key="\ud800")),
        ("part-000000.jsonl", line(status="perfect")),
        ("part-000000.jsonl", line(output_key=["a.png"])),
        ("part-000000.jsonl", line(input_version=10**25)),
        ("part-000000.parquet", thrift()),
        ("part-000000.parquet", parquet(status="perfect")),
        ("part-000000.parquet", parquet(input_key=None)),
        ("part-000000.parquet", parquet(input_version=1)),
        ("part-000000.parquet", parquet(output_key={"a": "b"})),
    ],
)
def test_a_damaged_record_of_a_run_is_named(
    name: str, data: bytes, tmp_path: Path, settings: Settings
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture(1)})
    records = open_store(f"{target}/_mirnet", settings)
    if name != "lease.json":
        records = records.child("runs").child(RUN)
    if name == "max-pixels.json":
        records.put("conditions.json", b'{"model": "m", "settings_digest": "d"}')
    records.put(name, data)
    with pytest.raises(StorageError, match=rf"{name}.*(delete|move) it") as caught:
        enhance_batch(source, target, settings)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("columns", [{"width": 10**25}, {"noise": "x"}, {"seconds": None}])
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_row_of_wrong_types_is_named(
    columns: dict[str, Any], format: str, tmp_path: Path, settings: Settings
) -> None:
    if format == "parquet" and columns == {"width": 10**25}:
        columns = {"width": 2.5}
    ledger = Ledger(open_store(str(tmp_path), settings))
    data = line(**columns) if format == "jsonl" else parquet(**columns)
    ledger.run(RUN).write_part(0, data, format)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="not a manifest of ours"):
        list(ledger.past_runs().rows())


def test_whatever_bytes_change_in_a_manifest_it_is_read_or_named(
    tmp_path: Path, settings: Settings
) -> None:
    ledger = Ledger(open_store(str(tmp_path), settings))
    good = dump_rows([replace(ROW, input_key=f"{n}.png", width=n) for n in range(20)], "parquet")
    lots = random.Random(0)
    outcomes = set()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(lots.randint(1, 20)):
            data[lots.randrange(len(data))] = lots.randrange(256)
        ledger.run(RUN).write_part(0, bytes(data), "parquet")
        past = ledger.past_runs()
        for read in (past.rows, past.done_records):
            try:
                outcomes.add(len(list(read())))
            except StorageError as error:
                assert "part-000000.parquet" in str(error)
                outcomes.add(-1)
    assert {-1, 20} <= outcomes


def test_damaged_summary_and_agreement_are_named(tmp_path: Path, settings: Settings) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture(1)})
    result = enhance_batch(source, target, settings)
    run = Ledger.of_target(open_store(target, settings)).run(result.run_id)
    for poisoned in (b"[]", b"{}", b'{"source": 1}', DEEP):
        run.store.put("summary.json", poisoned)
        with pytest.raises(StorageError, match=r"summary\.json is not readable"):
            trace(f"{target}/a.png", settings)
    run.store.put("max-pixels.json", b'"x"')
    with pytest.raises(StorageError, match=r"max-pixels\.json is not readable"):
        run.agree_on_max_pixels(5)


def test_records_of_newer_versions_may_have_more(tmp_path: Path, settings: Settings) -> None:
    ledger = Ledger(open_store(str(tmp_path), settings))
    ledger.write_lease(json.dumps(LEASE | {"released": True, "new": []}).encode(), replaces=None)
    with Lease(ledger, lease_s=30) as lease:
        assert lease.entry.term == 2
    for number, (format, data) in enumerate(
        {"jsonl": line(new=[1]), "parquet": parquet(new=[1])}.items()
    ):
        ledger.run(RUN).write_part(number, data, format)  # type: ignore[arg-type]
    assert [row.input_key for row in ledger.past_runs().rows()] == ["a.png", "a.png"]
    assert len(list(ledger.past_runs().done_records())) == 2
    origin = from_metadata(to_metadata(ROW) | {"mirnet-new": "x"})
    assert origin is not None
    assert origin.row.model_name == MODEL.name
