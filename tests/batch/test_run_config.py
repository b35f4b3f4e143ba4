"""Outputs depend on the image, not on what came before it, also over a kill."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from mirnet.batch import run_config
from mirnet.batch.digests import Digests
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.batch.run_config import BatchRunConfig, agree_on_max_pixels
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.images import Image, decode
from mirnet.inference import Enhancer
from mirnet.models import build
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, UNGUARDED, fill, picture

# the most frequent size comes late
PICTURES = {f"{n:02d}.png": picture(n, side=24 if n < 4 else 40) for n in range(12)} | {
    "odd.png": picture(99, side=33)
}

PARAMS = EnhanceParams(contact_images=0, **UNGUARDED)


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_config, "LEAST_EXPECTED", 4)


class Notebook:
    """Stands in for the enhancer; writes down how it was asked."""

    max_pixels = 1000

    def __init__(self) -> None:
        self.settled: list[tuple[list[tuple[int, int]], int | None]] = []
        self.batches: list[int] = []

    def fix_shapes(self, sizes: Collection[tuple[int, int]], *, max_pixels: int | None) -> None:
        self.settled.append((list(sizes), max_pixels))

    def batch_size(self, height: int, width: int) -> int:
        return 4 if (height, width) in self.settled[-1][0] else 1

    def enhance_images(self, images: Sequence[Image], strength: float) -> list[Image]:
        assert strength == 1
        self.batches.append(len(images))
        return [replace(image, pixels=image.pixels * np.uint8(2)) for image in images]


def enhance(
    places: tuple[str, str], settings: Settings, model: object, stop_at: int | None = None
) -> EnhanceResult:
    def progress(done: int, _todo: int) -> None:
        if done == stop_at:
            raise StorageError("the store went away")

    return run_batch(
        *places,
        enhance=model,
        model=MODEL,
        params=PARAMS,
        settings=settings,
        progress=progress,
    )


def test_frequent_sizes_are_chosen_and_go_in_batches(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES | {"bad.png": b"x"})
    model = Notebook()
    result = enhance(places, settings, model)
    assert (result.enhanced, result.quarantined) == (13, 1)
    assert model.settled == [([(40, 40), (24, 24)], 1000)]
    assert sorted(model.batches) == [1, 4, 4, 4]
    (key,) = [
        info.key
        for info in open_store(places[1], settings).list("_mirnet/runs/")
        if info.key.endswith("conditions.json")
    ]
    told = json.loads(open_store(places[1], settings).get(key).data)
    assert (told["model"], told["sizes"]) == ("mirnet-3", [[40, 40], [24, 24]])


def test_the_successor_of_a_dead_run_keeps_its_choice_and_no_other_does(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES)
    with pytest.raises(StorageError, match="went away"):
        enhance(places, settings, Notebook(), stop_at=6)
    fill(places[0], {f"new{n}.png": picture(50 + n, side=48) for n in range(9)})
    second = Notebook()
    second.max_pixels = 77  # less memory is free by now
    assert enhance(places, settings, second).failed == 0
    assert second.settled == [([(40, 40), (24, 24)], 1000)]
    # that one has ended: the next night chooses anew
    fill(places[0], {f"late{n}.png": picture(70 + n, side=56) for n in range(4)})
    third = Notebook()
    enhance(places, settings, third)
    assert third.settled == [([(56, 56)], 1000)]


def test_workers_tile_as_the_first_of_them_and_so_does_their_successor(
    places: tuple[str, str], settings: Settings
) -> None:
    target = open_store(places[1], settings)
    run = Ledger.of_target(target).run("00000001-dead")
    known = BatchRunConfig(MODEL.label, Digests.of(PARAMS).output, ((40, 40),))
    run.write_run_config(known.dump())
    assert agree_on_max_pixels(run, known, 500).max_pixels == 500
    assert agree_on_max_pixels(run, known, 900).max_pixels == 500
    assert agree_on_max_pixels(run, known, None) == known
    fill(places[0], PICTURES)
    model = Notebook()
    enhance(places, settings, model)
    assert model.settled == [([(40, 40)], 500)]


def test_nothing_is_chosen_for_few_or_for_one(places: tuple[str, str], settings: Settings) -> None:
    fill(places[0], {"a.png": picture(1), "b.png": picture(2), "c.png": picture(3)})
    model = Notebook()
    enhance(places, settings, model)
    assert model.settled == [([], 1000)]


def network(precision: str, *, compile: bool) -> Enhancer:
    """Of one stream if it is compiled, which takes many seconds per size."""
    torch.manual_seed(0)
    small = build("mirnet-xs", n_feat=8, num_streams=1 if compile else 3)
    return Enhancer(small, precision=precision, compile=compile)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "compile"),
    [("float32", False), ("bf16", False), pytest.param("bf16", True, marks=pytest.mark.slow)],
)
def test_a_real_network_gives_the_same_bytes_after_a_stop(
    precision: str, compile: bool, s3: str, settings: Settings
) -> None:
    fill(f"{s3}/in", PICTURES)
    calm, stopped = (f"{s3}/in", f"{s3}/calm"), (f"{s3}/in", f"{s3}/stopped")
    assert enhance(calm, settings, network(precision, compile=compile)).enhanced == 13
    for stop_at in (3, 5):
        with pytest.raises(StorageError, match="went away"):
            enhance(stopped, settings, network(precision, compile=compile), stop_at=stop_at)
    enhance(stopped, settings, network(precision, compile=compile))
    one, other = open_store(calm[1], settings), open_store(stopped[1], settings)
    for key in PICTURES:
        assert one.get(key).data == other.get(key).data, key
    rows = list(Ledger.of_target(other).past_runs().rows())
    assert {row.input_key for row in rows} == set(PICTURES)


def test_a_picture_above_the_memory_limit_goes_through_in_tiles(
    places: tuple[str, str], settings: Settings
) -> None:
    """The same bytes as by hand, and about what the whole image would have been."""
    large = picture(7, side=440)
    fill(places[0], {"large.png": large, "small.png": picture(8)})
    whole = network("float32", compile=False)
    tiling = network("float32", compile=False)
    tiling.fix_shapes((), max_pixels=320 * 320)
    seen: list[tuple[int, ...]] = []
    assert tiling.max_pixels == 320 * 320
    tiling.network._model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert enhance(places, settings, tiling).enhanced == 2
    assert max(height * width for *_, height, width in seen) <= 320 * 320
    out = decode(open_store(places[1], settings).get("large.png").data, name="large")
    low = decode(large, name="large")
    assert np.array_equal(out.pixels, tiling.enhance_image(low).pixels)
    difference = out.pixels.astype(float) - whole.enhance_image(low).pixels
    assert 10 * np.log10(255**2 / max(np.square(difference).mean(), 1e-9)) > 40
