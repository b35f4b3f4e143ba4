"""What version 0.1 left in a bucket is read and gone on with.

``stored/night-0.1.zip`` has all objects of a bucket, with their metadata: a night of two images
that ended, and one that was killed while it worked on the rest.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections import Counter
from pathlib import Path

import boto3
import pytest

from mirnet.batch.ledger import Ledger
from mirnet.batch.provenance import trace
from mirnet.batch.verification import verify_outputs
from mirnet.config import Settings
from mirnet.images import decode
from mirnet.storage.places import open_store
from tests.batch.samples import double, enhance_batch, picture

STORED = Path(__file__).parent / "stored" / "night-0.1.zip"
SEEDS = {f"{n}.png": n for n in range(6)} | {"done.png": 40}
SOURCE, TARGET = "s3://stored/in", "s3://stored/out"


@pytest.fixture
def half_done(s3: str) -> dict[str, str]:
    """The bucket as it was; version by key of what lies in the target."""
    del s3  # credentials
    client = boto3.client("s3")
    client.create_bucket(Bucket="stored")
    with zipfile.ZipFile(STORED) as stored:
        for key, about in json.loads(stored.read("index.json")).items():
            client.put_object(
                Bucket="stored",
                Key=key,
                Body=stored.read(key),
                Metadata=about["metadata"],
                ContentType=about["content_type"],
            )
    return {info.key: info.version for info in open_store(TARGET, Settings()).list()}


def test_a_half_done_night_of_0_1_is_gone_on_with(half_done: dict[str, str]) -> None:
    settings = Settings(lease_s=5)
    for _ in range(60):  # until the lease of the dead run, of a second, has run out
        result = enhance_batch(SOURCE, TARGET, settings, contact_images=0, max_bad_share=1)
        if result.held_by is None:
            break
        time.sleep(0.5)
    assert (result.planned, result.skipped) == (8, 3), "a manifest of two rows and a part of one"
    assert (result.enhanced, result.quarantined, result.failed) == (4, 1, 0)

    target = open_store(TARGET, settings)
    for name, seed in SEEDS.items():
        wanted = double(decode(picture(seed, side=16), name=name))
        assert (decode(target.get(name).data, name=name).pixels == wanted.pixels).all()
    now = {info.key: info.version for info in target.list()}
    written = [key for key in half_done if key.endswith(".png")]
    assert len(written) == 5 and all(now[key] == half_done[key] for key in written), "kept"

    rows = list(Ledger.of_target(target).past_runs().rows())
    last = {row.input_key: row.status for row in rows}
    assert Counter(last.values()) == {"enhanced": 7, "quarantined": 1}
    assert trace(f"{TARGET}/0.png", settings).input_address == f"{SOURCE}/0.png"
    again = enhance_batch(SOURCE, TARGET, settings, contact_images=0, max_bad_share=1)
    assert (again.skipped, again.enhanced) == (8, 0)
    verified = verify_outputs(TARGET, settings)
    assert (verified.outputs, verified.not_checkable, verified.num_problems) == (7, 3, 0)
