"""An inbox that has nothing for this night is no error."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from mirnet.batch.run import run_batch
from mirnet.cli.show import show_enhancement
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.store import NoSuchPlace
from tests.batch.samples import MODEL, double, fill, picture


def enhance(source: str, target: str, settings: Settings, min_age_s: float = 0) -> EnhanceResult:
    return run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        params=EnhanceParams(contact_images=0, min_age_s=min_age_s),
        settings=settings,
    )


@pytest.mark.parametrize(
    "strays", [{}, {"readme.txt": b"x"}, {"Thumbs.db": b"x", "readme.txt": b"x", "link.lnk": b"x"}]
)
def test_an_inbox_of_fresh_pictures_is_no_error(
    places: tuple[str, str], settings: Settings, strays: dict[str, bytes]
) -> None:
    fill(places[0], {"a.png": picture(1)} | strays)
    result = enhance(*places, settings, min_age_s=3600)
    assert (result.planned, result.passed_over["too-young"]) == (0, 1)


@pytest.mark.parametrize(("ahead_s", "young"), [(60.0, True), (3600.0, True), (1e9, False)])
def test_a_date_in_the_far_future_is_not_waited_for(
    ahead_s: float, young: bool, tmp_path: Path, settings: Settings
) -> None:
    """As of a camera whose clock was wrong; of a file server's clock a little."""
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    modified = time.time() + ahead_s
    os.utime(tmp_path / "in" / "a.png", (modified, modified))
    result = enhance(str(tmp_path / "in"), str(tmp_path / "out"), settings, min_age_s=600)
    assert result.planned == (0 if young else 1)


@pytest.mark.parametrize("strays", [{}, {"Thumbs.db": b"x", "._a.png": b"x"}])
def test_an_empty_inbox_is_no_error(
    places: tuple[str, str],
    settings: Settings,
    strays: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = places
    fill(source, strays)
    if source.startswith("s3://") and not strays:
        with pytest.raises(UsageError, match="nothing lies there; is the place right"):
            enhance(source, target, settings)
        return
    result = enhance(source, target, settings)
    assert (result.planned, result.passed_over.get("junk", 0)) == (0, len(strays))
    show_enhancement(result)
    over = "; passed over: 2 junk" if strays else ""
    assert capsys.readouterr().out == f"{source}: nothing to enhance yet{over}\n"
    fill(source, {"a.png": picture(1)})
    assert enhance(source, target, settings).enhanced == 1


def test_the_marker_of_a_folder_is_no_file(s3: str, settings: Settings) -> None:
    client = boto3.client("s3")
    bucket = f"inbox-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    for key in ("tonight/", "tonight/later/"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    for source in (f"s3://{bucket}/tonight", f"s3://{bucket}/tonight/", f"s3://{bucket}"):
        result = enhance(source, f"{s3}/target", settings)
        assert (result.planned, result.passed_over) == (0, {})


@pytest.mark.parametrize("target", ["out/", "out/bright.png"])
def test_a_missing_object_is_named(s3: str, settings: Settings, target: str) -> None:
    fill(f"{s3}/source", {"a.png": picture(1)})
    missing = f"{s3}/source/b.png"
    with pytest.raises(NoSuchPlace, match=f"{missing}: no such object"):
        enhance(missing, f"{s3}/{target}", settings)


def test_an_empty_bucket_is_an_empty_inbox(s3: str, settings: Settings) -> None:
    client = boto3.client("s3")
    bucket = f"inbox-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    for source in (f"s3://{bucket}", f"s3://{bucket}/tonight"):
        assert enhance(source, f"{s3}/target", settings).planned == 0
    client.put_object(Bucket=bucket, Key="tonight/a.png", Body=picture(1))
    assert enhance(f"s3://{bucket}/tonight", f"{s3}/target", settings).enhanced == 1
    with pytest.raises(UsageError, match="nothing lies there; is the place right"):
        enhance(f"s3://{bucket}/tomorrow", f"{s3}/target", settings)
