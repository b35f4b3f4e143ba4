from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pytest

from mirnet.batch import run_record
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row, load_rows
from mirnet.batch.run import preview, run_batch
from mirnet.batch.run_record import RunRecord
from mirnet.config import Settings
from mirnet.errors import DataError, UsageError
from mirnet.images import decode
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.s3 import S3Store
from tests.batch.samples import MODEL, double, enhance_batch as enhance, fill, picture

PICTURES = {"a.png": picture(1), "b/c.jpg": picture(2, format="JPEG"), "b/d.webp": picture(3)}
BAD = {
    "bad/cut.png": (picture(4)[:900], "truncated"),
    "bad/empty.png": (b"", "empty"),
    "bad/text.jpg": (b"not a picture at all", "not-an-image"),
}


def rows_of(result: EnhanceResult) -> dict[str, Row]:
    assert result.manifest_uri is not None
    folder, _, name = result.manifest_uri.rpartition("/")
    data = open_store(folder, Settings()).get(name).data
    rows = list(load_rows(data, "jsonl" if name.endswith("jsonl") else "parquet"))
    assert len({row.input_key for row in rows}) == len(rows)
    return {row.input_key: row for row in rows}


def test_every_image_is_accounted_for(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, PICTURES | {key: data for key, (data, _) in BAD.items()} | {"notes.txt": b"x"})
    result = enhance(source, target, settings)
    counts = (result.planned, result.enhanced, result.quarantined, result.failed, result.skipped)
    assert counts == (6, 3, 3, 0, 0)
    rows = rows_of(result)
    assert set(rows) == set(PICTURES) | set(BAD)
    store = open_store(target, settings)
    for key, data in PICTURES.items():
        low, out = decode(data, name=key), decode(store.get(key).data, name=key)
        assert out.format == low.format
        assert out.pixels.mean() == pytest.approx(low.pixels.mean() * 2, rel=0.05)
        row = rows[key]
        assert (row.status, row.output_key, row.input_size) == ("enhanced", key, len(data))
        assert row.luminance_after == pytest.approx(2 * (row.luminance_before or 0), rel=0.05)
        assert (row.model_version, row.data_digest, row.git_commit) == (
            "3",
            MODEL.data_digest,
            "c0ffee",
        )
    for key, (data, reason) in BAD.items():
        assert (rows[key].status, rows[key].reason) == ("quarantined", reason)
        assert store.get(f"_mirnet/quarantine/{key}").data == data
        assert store.head(key) is None
    assert result.summary_uri is not None
    summary = json.loads(
        open_store(result.summary_uri.rpartition("/")[0], settings).get("summary.json").data
    )
    assert summary["counts"] == {
        "planned": 6,
        "skipped": 0,
        "ignored": 1,
        "quarantined_before": 0,
        "outputs_deleted": 0,
        "outputs_changed": 0,
        "enhanced": 3,
        "passed_through": 0,
        "quarantined": 3,
        "failed": 0,
        "known_bad": 0,
    }
    assert summary["reasons"] == {"truncated": 1, "empty": 1, "not-an-image": 1}


def test_done_is_skipped_and_changed_is_done_again(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, PICTURES | {"bad.png": b"zzz"})
    enhance(source, target, settings)
    again = enhance(source, target, settings)
    assert (again.planned, again.skipped, again.enhanced) == (4, 4, 0)
    fill(source, {"a.png": picture(9), "new.png": picture(8)})
    third = enhance(source, target, settings)
    assert (third.planned, third.skipped, third.enhanced) == (5, 3, 2)
    out = decode(open_store(target, settings).get("a.png").data, name="a")
    assert np.array_equal(out.pixels, double(decode(picture(9), name="a")).pixels)


def test_deleted_output_is_made_again(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, PICTURES)
    enhance(source, target, settings)
    open_store(target, settings).delete("a.png")
    assert enhance(source, target, settings).enhanced == 1


def test_new_model_redoes_only_if_told(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, PICTURES)
    enhance(source, target, settings)
    newer = replace(MODEL, version="4")
    assert enhance(source, target, settings, newer).skipped == 3
    redone = enhance(source, target, settings, newer, on_new_model="redo")
    assert redone.enhanced == 3
    assert {row.model_version for row in rows_of(redone).values()} == {"4"}
    assert enhance(source, target, settings, newer, on_new_model="redo").skipped == 3


def test_versioned_layout_keeps_both(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    enhance(source, target, settings, layout="versioned")
    enhance(
        source,
        target,
        settings,
        replace(MODEL, version="4"),
        layout="versioned",
        on_new_model="redo",
    )
    keys = {info.key for info in open_store(target, settings).list()}
    assert {"mirnet-3/a.png", "mirnet-4/a.png"} <= keys


def test_foreign_object_is_never_overwritten(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, PICTURES)
    fill(target, {"a.png": b"somebody's"})
    result = enhance(source, target, settings)
    assert (result.enhanced, result.failed) == (2, 1)
    assert "conflict" in (rows_of(result)["a.png"].reason or "")
    assert open_store(target, settings).get("a.png").data == b"somebody's"


def test_output_without_a_row_is_adopted(places: tuple[str, str], settings: Settings) -> None:
    """What a killed run wrote but did not record."""
    source, target = places
    fill(source, PICTURES)
    first = rows_of(enhance(source, target, settings))
    store = open_store(target, settings)
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    version = {key: (store.head(key) or pytest.fail(key)).version for key in PICTURES}
    result = run_batch(
        source,
        target,
        enhance=lambda _: pytest.fail("enhanced twice"),
        model=MODEL,
        params=EnhanceParams(),
        settings=settings,
    )
    assert result.enhanced == 3
    for key, row in rows_of(result).items():
        assert (store.head(key) or pytest.fail(key)).version == version[key]
        was = first[key]
        assert (row.luminance_after, row.width, row.noise) == (
            was.luminance_after,
            was.width,
            was.noise,
        )


def test_bright_pictures_pass_through(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    bright = picture(5, level=256)
    fill(source, {"dark.png": picture(1), "bright.png": bright})
    result = enhance(source, target, settings, pass_luminance=0.3)
    assert (result.enhanced, result.passed_through) == (1, 1)
    assert open_store(target, settings).get("bright.png").data == bright


def test_too_many_bad_ones_fail_loudly_after_the_summary(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {"a.png": picture(1), "b.png": b"x", "c.png": b"y"})
    with pytest.raises(
        DataError, match=r"2 of 3 images are bad \(not-an-image 2\), more.*max_bad_share 0\.5"
    ):
        enhance(source, target, settings)
    summaries = [
        i.key for i in open_store(target, settings).list() if i.key.endswith("summary.json")
    ]
    assert len(summaries) == 1
    assert json.loads(open_store(target, settings).get(summaries[0]).data)["status"] == "failed"


def test_limits_of_size_quarantine(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1), "wide.png": picture(2, side=64), "c.png": picture(3)})
    result = enhance(source, target, settings, max_pixels=32 * 32)
    assert (result.enhanced, rows_of(result)["wide.png"].reason) == (2, "too-large")
    raised = enhance(source, target, settings)
    assert (raised.skipped, raised.enhanced) == (2, 1)
    fill(source, {"heavy.png": picture(4, side=64)})
    heavy = enhance(source, target, settings, max_bytes=5000, max_bad_share=1)
    assert (heavy.skipped, rows_of(heavy)["heavy.png"].reason) == (3, "too-large")


def test_a_model_that_fails_on_one_image_fails_that_image_only(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, PICTURES)

    def moody(image: object) -> object:
        if image.format == "JPEG":  # type: ignore[attr-defined]
            raise RuntimeError("out of memory")
        return double(image)  # type: ignore[arg-type]

    result = run_batch(
        source, target, enhance=moody, model=MODEL, params=EnhanceParams(), settings=settings
    )
    assert (result.enhanced, result.failed) == (2, 1)
    assert rows_of(result)["b/c.jpg"].reason == "model: out of memory"
    assert enhance(source, target, settings).enhanced == 1


def test_json_lines_and_filters_and_limit(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, PICTURES)
    with preview(
        source, target, model=MODEL, params=EnhanceParams(include=("b/*",)), settings=settings
    ) as plan:
        assert [item.info.key for item in plan] == ["b/c.jpg", "b/d.webp"]
    result = run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        settings=settings,
        limit=2,
        params=EnhanceParams(manifest_format="jsonl"),
    )
    assert result.enhanced == 2
    assert len(rows_of(result)) == 2
    assert enhance(source, target, settings, min_age_s=3600).planned == 0
    assert enhance(source, target, settings).enhanced == 1


def test_a_limit_is_not_used_up_on_what_failed_before(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {f"{n}.png": picture(n) for n in range(6)})
    fill(target, {f"{n}.png": b"somebody's" for n in range(3)})

    def night(limit: int | None) -> tuple[int, int, int]:
        params = EnhanceParams(max_bad_share=1)
        result = run_batch(
            *places, enhance=double, model=MODEL, params=params, settings=settings, limit=limit
        )
        return result.planned - result.skipped, result.enhanced, result.failed

    assert night(3) == (3, 0, 3)
    assert night(2) == (2, 2, 0)
    assert night(2) == (2, 1, 1)
    with preview(*places, model=MODEL, params=EnhanceParams(), settings=settings, limit=2) as plan:
        assert [item.info.key for item in plan] == ["1.png", "2.png"], "longest ago first"
    assert night(None) == (3, 0, 3)
    fill(source, {"0.png": picture(9)})  # changed since: as good as new
    open_store(target, settings).delete("0.png")
    assert night(1) == (1, 1, 0)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_long_night_has_a_manifest_in_shards(
    format: str, s3: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "ROWS_PER_SHARD", 4)
    monkeypatch.setattr(run_record, "_ROWS_PER_GROUP", 3)
    store = open_store(s3, settings)
    record = RunRecord(Ledger(store).run("00000001-x"), format=format)  # type: ignore[arg-type]
    rows = [Row(f"{n}.png", "v", 1, "enhanced", "r", "d", "m", reason="ü\n") for n in range(11)]
    for number, row in enumerate(rows):
        record.add(row)
        if number % 2:
            record.flush()
    record.finish({})
    kept = sorted(info.key.rpartition("/")[2] for info in store.list())
    shards = [f"manifest-{n:05d}.{format}" for n in (1, 2, 3)]
    assert kept == [*shards, "summary.json"]
    told = json.loads(store.get("runs/00000001-x/summary.json").data)
    assert told["manifest"] == shards
    assert list(Ledger(store).past_runs().rows()) == rows


def test_one_file_to_one_file(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in.png").write_bytes(picture(1))
    result = enhance(str(tmp_path / "in.png"), str(tmp_path / "out.jpg"), settings)
    assert result.enhanced == 1
    assert decode((tmp_path / "out.jpg").read_bytes(), name="out").format == "JPEG"
    assert {path.name for path in tmp_path.iterdir()} == {"in.png", "out.jpg", "workspace"}
    assert enhance(str(tmp_path / "in.png"), str(tmp_path / "out.jpg"), settings).skipped == 1
    assert enhance(str(tmp_path / "in.png"), str(tmp_path / "folder"), settings).enhanced == 1
    assert (tmp_path / "folder" / "in.png").is_file()


def test_one_object(s3: str, settings: Settings) -> None:
    fill(s3, {"a.png": picture(1), "a.png.bak": b"x"})
    result = enhance(f"{s3}/a.png", f"{s3}/out/b.png", settings)
    assert (result.planned, result.enhanced) == (1, 1)
    assert open_store(s3, settings).head("out/b.png") is not None


def test_target_inside_source_is_not_read(places: tuple[str, str], settings: Settings) -> None:
    source, _ = places
    fill(source, PICTURES)
    assert enhance(source, f"{source}/out", settings).enhanced == 3
    assert enhance(source, f"{source}/out", settings).planned == 3
    with pytest.raises(UsageError, match="another place"):
        enhance(source, source, settings)


def test_content_types_are_those_of_the_bytes(s3: str, settings: Settings) -> None:
    fill(f"{s3}/in", PICTURES | {"really-a.png": picture(4, format="JPEG")})
    enhance(f"{s3}/in", f"{s3}/out", settings)
    store = open_store(f"{s3}/out", settings)
    assert isinstance(store, S3Store)
    client = boto3.client("s3", endpoint_url=store.endpoint)

    def content_type(key: str) -> str:
        found = client.head_object(Bucket=store.bucket, Key=store.prefix + key)
        return str(found["ContentType"])

    assert {key: content_type(key) for key in [*PICTURES, "really-a.png"]} == {
        "a.png": "image/png",
        "b/c.jpg": "image/jpeg",
        "b/d.webp": "image/png",
        "really-a.png": "image/jpeg",
    }


def test_what_an_output_does_not_carry_stands_in_its_row(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    plain = picture(1, format="JPEG")
    several = plain[:2] + b"\xff\xe2\0\x0aMPF\0abcd" + plain[2:] + b"another picture"
    fill(source, {"plain.jpg": plain, "several.jpg": several})
    rows = rows_of(enhance(source, target, settings))
    dropped = {key: row.dropped for key, row in rows.items()}
    assert dropped == {
        "plain.jpg": None,
        "several.jpg": "further pictures (MPF); 15 bytes after the picture",
    }
