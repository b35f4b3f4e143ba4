from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from mirnet.data.degradation import DegradationRanges, draw as draw_camera
from mirnet.errors import DataError
from mirnet.params import TrainParams
from mirnet.training.data.on_device import DevicePairs
from mirnet.training.data.pairs import check_patch_fits, pack_pairs
from mirnet.training.data.sampling import Draw, Light, Sampler, cut, load_batch, share


def _sampler(num_pairs=7, total_steps=100, num_replayed=0, **recipe):
    sizes = {"num_pairs": num_pairs, "num_replayed": num_replayed}
    return Sampler(TrainParams(**recipe), total_steps=total_steps, **sizes)


def _pairs(sizes):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return images, pack_pairs([f"p{i}" for i in range(len(sizes))], [(i // 4, i) for i in images])


def test_packed_pairs_give_back_what_was_packed():
    images, packed = _pairs([(20, 30), (16, 16), (40, 18)])
    for index, image in enumerate(images):
        low, high = packed.pair(index)
        np.testing.assert_array_equal(high, image)
        np.testing.assert_array_equal(low, image // 4)
        assert high.base is not None  # a view: nothing is copied


def test_pairs_of_unequal_size_are_refused_by_name():
    with pytest.raises(DataError, match="scene7"):
        pack_pairs(["scene7"], [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))])


def test_a_pair_smaller_than_the_patch_is_refused_by_name():
    _, packed = _pairs([(32, 32), (20, 31)])
    with pytest.raises(DataError, match=r"p1 is 31x20.*patch of 24"):
        check_patch_fits(packed, 24)


@given(num_pairs=st.integers(1, 9), batch_size=st.integers(1, 20), num_steps=st.integers(1, 8))
def test_no_pair_comes_twice_before_all_came_once(num_pairs, batch_size, num_steps):
    sampler = _sampler(num_pairs, seed=3, batch_size=batch_size)
    drawn = [draw.pair for step in range(num_steps) for draw in sampler.draws(step)]
    counts = Counter(drawn)
    assert len(drawn) == batch_size * num_steps
    assert max(counts.values()) - min(counts[i] for i in range(num_pairs)) <= 1


def test_a_step_is_drawn_alike_whatever_came_before():
    in_order = [_sampler(seed=1, batch_size=4).draws(step) for step in range(6)]
    assert _sampler(seed=1, batch_size=4).draws(5) == in_order[5]
    assert in_order[4] != in_order[5]
    assert _sampler(seed=2, batch_size=4).draws(5) != in_order[5]


def test_progressive_stages_change_sizes_and_go_on_in_the_chain_of_pairs():
    later = {"start": 0.5, "patch_size": 32, "batch_size": 2}
    sampler = _sampler(5, 10, batch_size=4, patch_size=16, progressive=[later])
    plans = [sampler.plan(step) for step in range(10)]
    assert [(p.batch_size, p.patch_size) for p in plans] == [(4, 16)] * 5 + [(2, 32)] * 5
    assert [p.first_sample for p in plans] == [0, 4, 8, 12, 16, 20, 22, 24, 26, 28]
    drawn = Counter(draw.pair for step in range(10) for draw in sampler.draws(step))
    assert set(drawn.values()) == {6}


def test_without_symmetries_patches_keep_their_orientation():
    turned = {d.symmetry for step in range(9) for d in _sampler(symmetries=True).draws(step)}
    assert turned == set(range(8))
    kept = {d.symmetry for step in range(9) for d in _sampler(symmetries=False).draws(step)}
    assert kept == {0}


def test_mixup_begins_late_and_mixes_low_and_high_alike():
    _, packed = _pairs([(24, 37)] * 7)
    sampler = _sampler(total_steps=10, batch_size=4, mixup_alpha=1.2, mixup_start=0.5)
    assert all(draw.partner is None for draw in sampler.draws(4))
    draws = sampler.draws(5)
    low, high = load_batch(packed, draws, patch_size=16)
    for number, draw in enumerate(draws):
        assert 0 < draw.weight < 1
        for mixed, side in ((low, 0), (high, 1)):
            first = cut(packed.pair(draw.pair)[side], draw, 16) / 255
            second = cut(packed.pair(draw.partner.pair)[side], draw.partner, 16) / 255
            expected = draw.weight * first + (1 - draw.weight) * second
            got = mixed[number].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(got, expected, atol=1e-6)


@given(batch_size=st.integers(1, 64), world_size=st.integers(1, 9))
def test_workers_share_a_batch_without_gap_or_overlap(batch_size, world_size):
    batch = list(range(batch_size))
    parts = [batch[share(batch_size, rank=r, world_size=world_size)] for r in range(world_size)]
    assert [sample for part in parts for sample in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("symmetry", range(8))
def test_low_and_high_are_cut_alike(symmetry):
    _, packed = _pairs([(24, 37)])
    low, high = load_batch(packed, [Draw(0, 0.3, 0.99, symmetry)], patch_size=16)
    assert low.shape == high.shape == (1, 3, 16, 16)
    np.testing.assert_allclose((high * 255).round() // 4, (low * 255).round())


def test_the_eight_symmetries_differ_and_the_corners_are_reached():
    image = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
    crops = {cut(image, Draw(0, 0.5, 0.5, s), 8).tobytes() for s in range(8)}
    assert len(crops) == 8
    np.testing.assert_array_equal(cut(image, Draw(0, 0.0, 0.0, 0), 8), image[:8, :8])
    np.testing.assert_array_equal(cut(image, Draw(0, 0.9999, 0.9999, 0), 8), image[12:, 12:])


def test_a_share_of_the_samples_is_the_reference_at_another_exposure():
    relight = {"share": 0.5, "darkest": 0.05, "well_lit": 0.25}
    sampler = _sampler(batch_size=400, relight=relight)
    draws = sampler.draws(3)
    lights = [draw.light for draw in draws if draw.light is not None]
    cameras = [light.camera for light in lights if light.camera is not None]

    assert 160 < len(lights) < 240
    assert 0.6 < len(cameras) / len(lights) < 0.9
    assert all(0.05 <= camera.exposure <= 1 for camera in cameras)
    assert np.median([camera.exposure for camera in cameras]) == pytest.approx(0.22, abs=0.06)
    assert draws == sampler.draws(3)
    # pairs and crops are those of a run without it
    assert [replace(draw, light=None) for draw in draws] == _sampler(batch_size=400).draws(3)


def test_relit_patches_are_made_from_the_reference():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 30, (40, 50, 3)), rng.integers(60, 200, (40, 50, 3))
    pairs = pack_pairs(["a"], [(low.astype(np.uint8), high.astype(np.uint8))])
    camera = draw_camera(DegradationRanges(exposure=(0.1, 0.1)), rng)
    lights = [
        None,
        Light(None, (1,)),
        Light(camera, (1,)),
        Light(camera, (1,)),
        Light(camera, (2,)),
    ]
    draws = [Draw(0, 0.3, 0.6, 5, light=light) for light in lights]
    lows, highs = load_batch(pairs, draws, patch_size=16)

    assert all(torch.equal(each, highs[0]) for each in highs)
    assert lows[0].mean() < 0.1
    assert torch.equal(lows[1], highs[1])
    assert 0.1 * highs[2].mean() < lows[2].mean() < 0.6 * highs[2].mean()
    assert torch.equal(lows[2], lows[3])
    assert not torch.equal(lows[3], lows[4])


def test_patches_cut_on_a_device_are_those_of_the_host():
    rng = np.random.default_rng(0)
    sizes = [(40, 50), (33, 64), (70, 32)]
    shots = [tuple(rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)) for size in sizes]
    pairs = pack_pairs(["a", "b", "c"], shots)
    recipe = {"mixup_alpha": 1.2, "relight": {"share": 0.3, "darkest": 0.1}}
    sampler = _sampler(num_pairs=3, batch_size=48, **recipe)
    draws = sampler.draws(0)
    wanted = load_batch(pairs, draws, patch_size=32)
    found = DevicePairs(pairs, torch.device("cpu")).load_batch(draws, patch_size=32)

    assert {draw.symmetry for draw in draws} == set(range(8))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous(memory_format=torch.channels_last)


def test_replayed_pairs_take_the_places_of_some():
    replay = {"data": "before", "share": 0.4}
    sampler = _sampler(num_pairs=50, batch_size=500, num_replayed=20, replay=replay)
    found = [draw.pair for draw in sampler.draws(2)]
    without = [draw.pair for draw in _sampler(num_pairs=50, batch_size=500).draws(2)]
    replayed = [pair for pair in found if pair >= 50]

    assert set(replayed) == set(range(50, 70))
    assert 0.33 < len(replayed) / len(found) < 0.47
    assert all(new in (old, *range(50, 70)) for new, old in zip(found, without, strict=True))
    assert found == [draw.pair for draw in sampler.draws(2)]
