"""What an earlier Mirnet, other params or another machine decided: what stays and what does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from mirnet.batch import image_work
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import ImageError, TooManyBad
from mirnet.images import Image, limits
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, double, fill, picture

BRIGHT = picture(5, level=256)


def enhance(
    places: tuple[str, str],
    settings: Settings,
    model: Callable[[Image], Image] = double,
    **params: object,
) -> EnhanceResult:
    given = {"contact_images": 0, "manifest_format": "jsonl", "max_bad_share": 1} | params
    return run_batch(
        *places,
        enhance=model,
        model=MODEL,
        params=EnhanceParams(**given),
        settings=settings,
    )


def fates(target: str, settings: Settings) -> dict[str, tuple[str, str]]:
    found = Ledger.of_target(open_store(target, settings)).past_runs().rows()
    return {row.input_key: (row.status, row.reason or "") for row in found}


def as_by_an_older_one(target: str, settings: Settings, **of_settings: object) -> None:
    """The digests that Mirnet wrote down before it had limits of harm."""
    old = hashlib.sha256(json.dumps(of_settings, sort_keys=True).encode()).hexdigest()[:16]
    store = open_store(target, settings)
    (key,) = [info.key for info in store.list() if info.key.endswith("manifest.jsonl")]
    rows = [json.loads(line) for line in store.get(key).data.splitlines()]
    lines = [json.dumps(row | {"settings_digest": old}) + "\n" for row in rows]
    store.put(key, "".join(lines).encode())


@pytest.mark.parametrize("pass_luminance", [None, 0.4])
def test_outputs_of_before_the_guard_stay_done(
    places: tuple[str, str], settings: Settings, pass_luminance: float | None
) -> None:
    fill(places[0], {"dark.png": picture(1), "bright.png": BRIGHT})
    more: dict[str, Any] = {} if pass_luminance is None else {"pass_luminance": pass_luminance}
    first = enhance(places, settings, strength=0.5)
    assert (first.enhanced, first.passed_through) == (1, 1)
    old = {"strength": 0.5, "precision": "auto", "pass_luminance": pass_luminance}
    as_by_an_older_one(places[1], settings, **old)
    second = enhance(places, settings, strength=0.5, **more)
    assert (second.skipped, second.enhanced + second.passed_through) == (1, 1)
    assert enhance(places, settings, strength=0.5, **more).skipped == 2
    assert enhance(places, settings, strength=0.6, **more).skipped == 0


def test_a_limit_concerns_what_was_passed_through(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], {"dark.png": picture(1), "bright.png": BRIGHT})
    enhance(places, settings)
    limit = enhance(places, settings, max_tint=0.11)
    assert (limit.skipped, limit.enhanced, limit.passed_through) == (1, 0, 1)
    # a run that was killed has left no row; the record on an output says the same
    store = open_store(places[1], settings)
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    before = store.get("dark.png").version
    assert enhance(places, settings, max_tint=0.12).enhanced == 1
    assert store.get("dark.png").version == before


def test_what_an_older_decoder_refused_is_tried_again(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], {"a.png": picture(1), "b.png": b"x"})

    def refuse(data: bytes, *, name: str, max_pixels: int) -> Image:
        raise ImageError("cut short", reason="truncated")

    with monkeypatch.context() as patched:
        patched.setattr(image_work, "decode", refuse)
        assert enhance(places, settings).quarantined == 2
    params = EnhanceParams()
    old = {"max_pixels": params.max_pixels, "max_bytes": params.max_bytes}
    assert enhance(places, settings).skipped == 2
    store = open_store(places[1], settings)
    keys = sorted(i.key for i in store.list() if i.key.endswith("manifest.jsonl"))
    store.delete(keys[1])
    as_by_an_older_one(places[1], settings, **old)
    again = enhance(places, settings)
    assert (again.enhanced, again.quarantined) == (1, 1)
    assert enhance(places, settings).skipped == 2


def test_too_little_memory_is_no_fault_of_a_picture(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], {"a.png": picture(1)})
    with monkeypatch.context() as patched:
        patched.setattr(limits, "total_memory", lambda: 1000)
        enhance(places, settings)
    status, reason = fates(places[1], settings)["a.png"]
    assert (status, reason.partition(":")[0]) == ("failed", "memory")
    assert enhance(places, settings).enhanced == 1


def test_whose_output_lies_there_is_said(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"x.png": picture(1), "y.png": picture(2)})
    fill(f"{source}-other", {"x.png": picture(3)})
    out = f"{target}/out.png"
    enhance((f"{source}/x.png", out), settings)
    with pytest.raises(TooManyBad, match=r"is of another image of this source, x\.png; move"):
        enhance((f"{source}/y.png", out), settings, max_bad_share=0)
    with pytest.raises(TooManyBad, match="is of another source; move"):
        enhance((f"{source}-other/x.png", out), settings, max_bad_share=0)


def test_a_rerun_of_a_good_night_is_good(places: tuple[str, str], settings: Settings) -> None:
    """What it tries again are only those that failed."""
    fill(places[0], {f"{n}.png": picture(n, side=8 if n < 4 else 9) for n in range(20)})

    def fails_on_some(image: Image) -> Image:
        if image.pixels.shape[0] == 8:
            raise RuntimeError("out of memory")
        return double(image)

    assert enhance(places, settings, fails_on_some, max_bad_share=0.25).failed == 4
    again = enhance(places, settings, fails_on_some, max_bad_share=0.25)
    assert (again.failed, again.skipped, again.problem) == (4, 16, None)
    assert again.known_bad == 4
    with pytest.raises(TooManyBad, match=r"4 of 20 images, 4 by earlier runs, are bad, more"):
        enhance(places, settings, fails_on_some, max_bad_share=0.1)


@pytest.mark.parametrize("num_bad", [1, 6])
def test_known_failures_that_are_left_alone_in_an_inbox_fail_no_run(
    num_bad: int, places: tuple[str, str], settings: Settings
) -> None:
    """Good images are moved away when they are done, bad ones stay and are tried each night."""
    good = {f"{n}.png": picture(n, side=8) for n in range(20)}
    fill(places[0], good | {f"bad{n}.png": picture(n, side=9) for n in range(num_bad)})
    fill(places[0], {"cut.png": b"x"})

    def fails_on_some(image: Image) -> Image:
        if image.pixels.shape[0] == 9:
            raise RuntimeError("out of memory")
        return double(image)

    first = enhance(places, settings, fails_on_some, max_bad_share=0.5)
    assert (first.failed, first.quarantined, first.known_bad) == (num_bad, 1, 0)
    source = open_store(places[0], settings)
    for key in good:
        source.delete(key)
    for _ in range(2):
        again = enhance(places, settings, fails_on_some, max_bad_share=0.5)
        assert (again.failed, again.skipped, again.problem) == (num_bad, 1, None)
        assert again.known_bad == num_bad + 1
    told = json.loads(summaries(places[1], settings)[-1])
    assert told["counts"]["known_bad"] == num_bad + 1
    fill(places[0], {f"new{n}.png": b"x" for n in range(3)})
    with pytest.raises(TooManyBad, match=rf"3 of 3 images are bad .*; {num_bad + 1} more were bad"):
        enhance(places, settings, fails_on_some, max_bad_share=0.5)


def test_one_bad_image_alone_fails_no_run_unless_it_was_named(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], {"a.png": b"x"})
    for _ in range(2):
        assert enhance(places, settings, max_bad_share=0.5).problem is None
    with pytest.raises(TooManyBad, match="1 of 1 images are bad"):
        fill(places[0], {"a.png": b"xy"})
        enhance(places, settings, max_bad_share=0.5, bad_min_images=1)
    for _ in range(2):
        with pytest.raises(TooManyBad, match="not-an-image"):
            enhance((f"{places[0]}/a.png", f"{places[1]}/"), settings, max_bad_share=0.5)


def summaries(target: str, settings: Settings) -> list[bytes]:
    store = open_store(target, settings)
    return [store.get(i.key).data for i in store.list() if i.key.endswith("summary.json")]


def test_many_good_ones_of_before_do_not_hide_a_bad_night(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], {f"{n}.png": picture(n, side=8) for n in range(20)})
    enhance(places, settings)
    fill(places[0], {f"bad{n}.png": b"x" for n in range(4)})
    with pytest.raises(TooManyBad, match=r"4 of 4 images are bad \(not-an-image 4\)"):
        enhance(places, settings, max_bad_share=0.5)
