"""What concerns one image costs that image; what concerns a night is said loudly."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from s3transfer.exceptions import RetriesExceededError

from mirnet.batch import image_job, image_work, run_config
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import preview, run_batch
from mirnet.config import Settings
from mirnet.errors import ServiceError, StorageError, TooManyBad, UsageError
from mirnet.images import Image
from mirnet.inference import Enhancer
from mirnet.models import build
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage import s3errors
from mirnet.storage.local import LocalStore
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectRefused, TransientStorageError
from tests.batch.samples import MODEL, double, fill, picture

PICTURES = {f"{n}.png": picture(n) for n in range(4)}


def enhance(
    source: str,
    target: str,
    enhance: Callable[[Image], Image] | Enhancer = double,
    **params: Any,
) -> EnhanceResult:
    return run_batch(
        source,
        target,
        enhance=enhance,
        model=MODEL,
        params=EnhanceParams(contact_images=0, **params),
        settings=Settings(),
    )


def rows(target: str) -> dict[str, tuple[str, str]]:
    found = Ledger.of_target(open_store(target, Settings())).past_runs().rows()
    return {row.input_key: (row.status, (row.reason or "").partition(":")[0]) for row in found}


def test_a_second_source_never_takes_the_place_of_the_first(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    other = f"{source}-other"
    fill(source, {"IMG_1.png": picture(1), "mine.png": picture(2)})
    fill(other, {"IMG_1.png": picture(3), "theirs.png": picture(4)})
    enhance(source, target)
    before = open_store(target, settings).get("IMG_1.png").data
    assert (enhance(other, target).enhanced, rows(target)["IMG_1.png"]) == (
        1,
        ("failed", "conflict"),
    )
    assert open_store(target, settings).get("IMG_1.png").data == before
    assert enhance(source, target).failed == 0


def test_a_folder_has_one_name_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / "in"), PICTURES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert enhance("../in", "../in/out").enhanced == 4
    assert enhance(str(tmp_path / "link"), "../link/out").planned == 4
    assert not (tmp_path / "in" / "out" / "out").exists()


@pytest.mark.parametrize("name", ["decode", "encode", "measure"])
def test_whatever_happens_to_one_image_the_others_go_on(
    name: str, places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    usual, calls = getattr(image_work, name), []

    def once_out_of_memory(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return usual(*args, **more)

    monkeypatch.setattr(image_work, name, once_out_of_memory)
    result = enhance(*places)
    assert (result.enhanced, result.failed) == (3, 1)
    (reason,) = {reason for status, reason in rows(places[1]).values() if status == "failed"}
    assert reason in ("decoding", "writing")
    assert enhance(*places).enhanced == 1


@pytest.mark.parametrize("error", [IndexError("list"), AssertionError(), StopIteration()])
def test_whatever_a_model_raises_concerns_one_image(
    error: Exception, places: tuple[str, str]
) -> None:
    fill(places[0], PICTURES)
    calls = []

    def model(image: Image) -> Image:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return double(image)

    result = enhance(*places, model)
    assert (result.enhanced, result.failed) == (3, 1)
    assert [fate for fate in rows(places[1]).values() if fate[0] == "failed"] == [
        ("failed", "model")
    ]


def test_failures_count_as_bad(places: tuple[str, str]) -> None:
    fill(places[0], PICTURES)

    def model(_: Image) -> Image:
        raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(TooManyBad, match=r"4 of 4 images are bad \(model 4\)") as caught:
        enhance(*places, model)
    assert (caught.value.result.failed, caught.value.result.problem[:6]) == (4, "4 of 4")


def test_a_rerun_of_a_bad_night_is_bad(places: tuple[str, str]) -> None:
    fill(places[0], {"good.png": picture(1), "a.png": b"x", "b.png": b"y", "c.png": b"z"})
    with pytest.raises(TooManyBad, match="3 of 4 images are bad"):
        enhance(*places)
    with pytest.raises(TooManyBad, match=r"3 of 4 images, 3 by earlier runs, are bad"):
        enhance(*places)
    fill(places[0], PICTURES)
    assert enhance(*places).enhanced == 4


def test_many_refused_names_in_a_row_do_not_end_a_night(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    fill(str(source), {f"a/{n:02d}.png": picture(n) for n in range(25)})
    fill(str(source), {f"b/{n:02d}.png": picture(n) for n in range(30)})
    target.mkdir()
    (target / "a").write_text("in the way of a folder")
    result = enhance(str(source), str(target))
    assert (result.enhanced, result.failed) == (30, 25)
    assert rows(str(target))["a/00.png"] == ("failed", "name")


def test_a_file_that_we_may_not_read_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / "in"), PICTURES)
    real = os.open

    def refused(path: str, *arguments: Any, **options: Any) -> int:
        if path == "0.png" and not arguments[0] & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refused)  # root may read everything
    result = enhance(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (result.enhanced, result.failed) == (3, 1)
    assert rows(str(tmp_path / "out"))["0.png"] == ("failed", "refused")


def test_deep_folders_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):  # piece by piece: a path of that length is refused
        Path("d").mkdir()
        os.chdir("d")
    (tmp_path / "e.png").write_bytes(b"x")
    try:
        assert [info.key for info in LocalStore(tmp_path).list()] == ["e.png"]
    finally:
        for _ in range(1100):  # Python's own removal gives up
            os.chdir("..")
            Path("d").rmdir()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "InvalidObjectState", ObjectRefused),
        (400, "KMS.DisabledException", ObjectRefused),
        (503, "SlowDown", TransientStorageError),
        (403, "AccessDenied", StorageError),
        (403, "403", StorageError),
        (403, "AllAccessDisabled", StorageError),
    ],
)
def test_an_archived_object_is_no_reason_to_doubt_the_credentials(
    status: int, code: str, kind: type[StorageError]
) -> None:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = botocore.exceptions.ClientError(response, "GetObject")  # type: ignore[arg-type]
    explained = s3errors.explain(error.response, "s3://b/a.png")
    assert type(explained) is kind
    assert ("these credentials need" in str(explained)) == (code in ("AccessDenied", "403"))


def test_a_transfer_in_parts_that_breaks_is_tried_again(
    s3: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3, settings)
    store.put("a.png", b"x" * 10)
    real, calls = type(store._client).download_fileobj, []  # type: ignore[attr-defined]

    def breaks(client: object, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RetriesExceededError(OSError("connection broken"))
        real(client, *arguments)

    monkeypatch.setattr(type(store._client), "download_fileobj", breaks)  # type: ignore[attr-defined]
    file = io.BytesIO()
    store.read_into("a.png", file)
    assert (file.getvalue(), len(calls)) == (b"x" * 10, 2)


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "junk"),
    [
        ("parquet", b""),
        ("parquet", parquet(a=[1])),
        ("parquet", parquet(input_key=[None], input_version=["1"], status=["enhanced"])),
        ("parquet", parquet(input_key=[["a"]], input_version=["1"], status=["enhanced"])),
        ("jsonl", b"{\n"),
        ("jsonl", b"{}\n"),
        ("jsonl", b"[]\n"),
        ("jsonl", b"3\n"),
    ],
)
def test_rubbish_among_the_records_is_named(
    format: str, junk: bytes, places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES)
    first = enhance(*places, manifest_format=format)
    assert first.manifest_uri is not None
    folder, _, name = first.manifest_uri.rpartition("/")
    open_store(folder, settings).put(name, junk)
    with pytest.raises(StorageError, match=rf"{name}: not a manifest of ours .*; move it away"):
        enhance(*places)
    open_store(folder, settings).delete(name)
    assert enhance(*places).failed == 0  # by the records on the outputs


def test_a_broken_device_ends_the_run_and_is_no_fault_of_the_pictures(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    calls = []

    def breaks(self: Enhancer, images: list[Image], strength: float) -> list[Image]:
        calls.append(1)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(Enhancer, "enhance_images", breaks)
    enhancer = Enhancer(build("mirnet-xs", n_feat=8), device="cpu")
    with pytest.raises(ServiceError, match=r"is unusable: .*illegal memory access.*; start the"):
        enhance(*places, enhance=enhancer)
    assert len(calls) == 1
    assert rows(places[1]) == {}
    # one of them may have broken it, and must not do so before all others each night
    fill(places[0], {"z.png": picture(9)})
    ours: dict[str, Any] = {"model": MODEL, "params": EnhanceParams(), "settings": settings}
    with preview(*places, **ours) as plan:
        assert [(i.info.key, i.suspect) for i in plan] == [
            ("z.png", False),
            *((key, True) for key in PICTURES),
        ]
    assert enhance(*places).enhanced == len(PICTURES) + 1


def test_a_header_that_cannot_be_read_is_left_to_the_decoder(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)

    def breaks(data: bytes, *, name: str) -> tuple[int, int]:
        raise MemoryError

    monkeypatch.setattr(image_job, "read_size", breaks)
    monkeypatch.setattr(run_config, "read_size", breaks)
    monkeypatch.setattr(run_config, "LEAST_EXPECTED", 1)
    assert enhance(*places).enhanced == len(PICTURES)


def test_a_damaged_record_of_a_file_makes_it_a_strangers(tmp_path: Path) -> None:
    source, target = str(tmp_path / "in"), tmp_path / "out"
    fill(source, {"a.png": picture(1)})
    enhance(source, str(target))
    (sidecar,) = (target / "_mirnet" / "meta").rglob("*.json")
    sidecar.write_bytes(b"")
    with pytest.raises(TooManyBad, match="conflict 1"):
        enhance(source, str(target), strength=0.5, max_bad_share=0)


@pytest.mark.parametrize("prefix", ["bad", "_mirnet/runs/x", "_mirnet/quarantine/../runs"])
def test_quarantined_copies_have_a_place_of_their_own(prefix: str) -> None:
    with pytest.raises(ValueError, match="quarantine_prefix"):
        EnhanceParams(quarantine_prefix=prefix)
    EnhanceParams(quarantine_prefix="_mirnet/quarantine/2026-11")


def test_what_was_known_when_a_run_broke_is_on_record(places: tuple[str, str]) -> None:
    fill(places[0], PICTURES)

    def progress(done: int, _todo: int) -> None:
        if done == 2:
            raise UsageError("a bug, say")

    with pytest.raises(UsageError):
        run_batch(
            *places,
            enhance=double,
            model=MODEL,
            params=EnhanceParams(),
            settings=Settings(),
            progress=progress,
        )
    assert len(rows(places[1])) == 2
