"""Outputs that were replaced, truncated or deleted are found, by the command and by the plan."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.batch.run import preview
from mirnet.batch.verification import verify_outputs
from mirnet.config import Settings
from mirnet.errors import TooManyBad
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import VerifyResult
from mirnet.storage.places import open_store
from mirnet.storage.store import NoSuchPlace, ObjectRefused, Store
from tests.batch.samples import MODEL, enhance_batch, fill, picture

KEYS = [f"a/{n}.png" for n in range(6)]


def rows_of(target: str, settings: Settings) -> dict[str, Row]:
    rows = Ledger.of_target(open_store(target, settings)).past_runs().rows()
    return {row.input_key: row for row in rows}


@pytest.fixture
def damaged(places: tuple[str, str], settings: Settings) -> Store:
    """A target after a run, with one output replaced, one cut short, one deleted, one rewritten
    with the same bytes, and a file that no run wrote.
    """
    fill(places[0], {key: picture(n) for n, key in enumerate(KEYS)} | {"cut.png": b"x"})
    enhance_batch(*places, settings)
    store = open_store(places[1], settings)
    good = store.get(KEYS[0]).data
    store.put(KEYS[0], bytes(len(good)))
    store.put(KEYS[1], store.get(KEYS[1]).data[:100])
    store.delete(KEYS[2])
    store.put(KEYS[3], store.get(KEYS[3]).data)
    store.put("foreign.png", b"x")
    return store


def found(result: VerifyResult) -> dict[str, str]:
    return {each.output: each.problem for each in result.problems}


def test_changed_outputs_are_found(
    damaged: Store, places: tuple[str, str], settings: Settings
) -> None:
    steps: list[tuple[int, int]] = []
    result = verify_outputs(
        places[1], settings, progress=lambda done, total: steps.append((done, total))
    )
    assert found(result) == {KEYS[0]: "replaced", KEYS[1]: "truncated", KEYS[2]: "deleted"}
    assert (result.outputs, result.intact, result.not_checkable) == (6, 3, 0)
    assert (result.replaced, result.truncated, result.deleted, result.num_problems) == (1, 1, 1, 3)
    assert result.bytes_read > 0
    assert steps[-1] == (6, 6)

    quick = verify_outputs(places[1], settings, quick=True)
    assert quick.bytes_read == 0
    assert (quick.truncated, quick.deleted) == (1, 1)
    on_s3 = places[1].startswith("s3://")
    # a file that was rewritten has another version; an object of the same bytes the same ETag
    assert (quick.replaced, quick.intact) == ((1, 3) if on_s3 else (2, 2))
    assert damaged.get("foreign.png").data == b"x"


def test_a_plan_finds_them_too(damaged: Store, places: tuple[str, str], settings: Settings) -> None:
    checked = EnhanceParams(check_outputs=True)
    with preview(*places, model=MODEL, params=EnhanceParams(), settings=settings) as plan:
        assert (plan.num_todo, plan.counts.outputs_deleted, plan.counts.outputs_changed) == (
            1,
            1,
            0,
        )
    with preview(*places, model=MODEL, params=checked, settings=settings) as plan:
        assert [item.info.key for item in plan] == KEYS[:3]
        assert (plan.counts.outputs_deleted, plan.counts.outputs_changed) == (1, 2)
    result = enhance_batch(*places, settings, check_outputs=True, max_bad_share=1)
    assert (result.enhanced, result.failed, result.skipped) == (1, 2, 4)
    assert (result.outputs_deleted, result.outputs_changed) == (1, 2)
    assert "was changed since we wrote it; move it away" in (
        rows_of(places[1], settings)[KEYS[0]].reason or ""
    )
    assert damaged.get(KEYS[1]).data != b"", "a foreign object is not overwritten"


def test_a_changed_output_with_our_metadata_is_done_again(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], {"a.png": picture(1)})
    enhance_batch(*places, settings)
    store = open_store(places[1], settings)
    good = store.get("a.png")
    store.put("a.png", good.data[:200], metadata=good.metadata)
    assert enhance_batch(*places, settings).skipped == 1
    result = enhance_batch(*places, settings, check_outputs=True)
    assert (result.enhanced, result.outputs_changed) == (1, 1)
    assert store.get("a.png").data == good.data
    assert verify_outputs(places[1], settings).intact == 1


def test_rows_hold_version_and_digest_of_their_outputs(
    places: tuple[str, str], settings: Settings
) -> None:
    bright = picture(5, level=256)
    fill(places[0], {"a.png": picture(1), "bright.png": bright, "cut.png": b"x"})

    def check() -> None:
        rows = rows_of(places[1], settings)
        for key in ("a.png", "bright.png"):
            blob, row = store.get(key), rows[key]
            assert (row.output_size, row.output_version) == (len(blob.data), blob.version)
            assert row.output_digest == hashlib.sha256(blob.data).hexdigest()
        assert rows["cut.png"].output_digest is None

    store = open_store(places[1], settings)
    enhance_batch(*places, settings)
    check()
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    enhance_batch(*places, settings)  # adopts what a killed run left without rows
    check()


def test_the_last_row_of_an_output_counts(places: tuple[str, str], settings: Settings) -> None:
    fill(places[0], {"a.png": picture(1), "b.png": picture(2)})
    enhance_batch(*places, settings)
    fill(places[0], {"a.png": picture(3), "b.png": b"now damaged"})
    enhance_batch(*places, settings, max_bad_share=1)
    result = verify_outputs(places[1], settings)
    assert (result.outputs, result.intact) == (2, 2)


def test_older_rows_are_not_checkable(places: tuple[str, str], settings: Settings) -> None:
    fill(places[0], {f"{n}.png": picture(n) for n in range(3)})
    enhance_batch(*places, settings, manifest_format="jsonl")
    store = open_store(places[1], settings)
    (key,) = [info.key for info in store.list() if info.key.endswith("manifest.jsonl")]
    rows = [json.loads(line) for line in store.get(key).data.splitlines()]
    new = ("output_size", "output_version", "output_digest")
    old = [
        {name: value for name, value in row.items() if name not in new}
        if row["input_key"] != "2.png"
        else row
        for row in rows
    ]
    store.put(key, "".join(json.dumps(row) + "\n" for row in old).encode())
    store.delete("0.png")
    result = verify_outputs(places[1], settings)
    assert (result.intact, result.not_checkable, result.deleted) == (1, 1, 1)
    store.put("1.png", b"x")
    assert enhance_batch(*places, settings, check_outputs=True).outputs_changed == 0


def test_same_size_and_time_do_not_hide_a_changed_file(tmp_path: Path, settings: Settings) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture(1)})
    enhance_batch(source, target, settings)
    path = tmp_path / "out" / "a.png"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify_outputs(target, settings, quick=True).intact == 1
    assert found(verify_outputs(target, settings)) == {"a.png": "replaced"}
    path.unlink()
    path.symlink_to(tmp_path / "in" / "a.png")
    assert found(verify_outputs(target, settings)) == {"a.png": "replaced"}


def test_a_single_output(places: tuple[str, str], settings: Settings) -> None:
    fill(places[0], {"a.png": picture(1), "b.png": picture(2)})
    out = f"{places[1]}/bright.png"
    enhance_batch(f"{places[0]}/a.png", out, settings)
    assert verify_outputs(out, settings).intact == 1
    fill(places[1], {"bright.png": b"x"})
    assert found(verify_outputs(out, settings)) == {"bright.png": "truncated"}
    open_store(places[1], settings).delete("bright.png")
    assert found(verify_outputs(out, settings)) == {"bright.png": "deleted"}


def test_a_place_without_records_is_named(places: tuple[str, str], settings: Settings) -> None:
    fill(places[0], {"a.png": picture(1)})
    with pytest.raises(NoSuchPlace, match="left no records there"):
        verify_outputs(places[0], settings)


def test_an_output_that_the_store_refuses_is_unreadable(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], {"a.png": picture(1), "b.png": picture(2)})
    enhance_batch(*places, settings)
    kind = type(open_store(places[1], settings))
    usual = kind.get

    def archived(store: Store, key: str) -> object:
        if key == "a.png":
            raise ObjectRefused("archived", transient=False)
        return usual(store, key)

    monkeypatch.setattr(kind, "get", archived)
    result = verify_outputs(places[1], settings)
    assert (found(result), result.intact) == ({"a.png": "unreadable"}, 1)


def test_changed_outputs_of_a_source_that_fails_stay_named(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], {"a.png": picture(1)})
    enhance_batch(*places, settings)
    fill(places[1], {"a.png": b"somebody's"})

    def never(image: Image) -> Image:
        pytest.fail("a foreign output is not done again")

    for _ in range(2):
        with pytest.raises(TooManyBad, match=r"conflict 1|1 by earlier runs"):
            enhance_batch(*places, settings, enhance=never, check_outputs=True, max_bad_share=0)
