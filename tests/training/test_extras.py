"""Sample images and usage of nodes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirnet.data.loading import load_pairs
from mirnet.models import load_model
from mirnet.results import NodeUsage, SampleImage
from mirnet.training.data.samples import chosen


def _run(train, params, settings, **changes):
    extras = []
    result = train(params, settings, on_event=extras.append, **changes)
    pictures = [extra for extra in extras if isinstance(extra, SampleImage)]
    return result, pictures, [extra for extra in extras if isinstance(extra, NodeUsage)]


@pytest.mark.parametrize(
    ("override", "epochs"),
    [
        ("train.samples_every=1", [1, 3, 4]),
        ("train.samples_every=2", [1, 3, 4]),
        ("train.samples_every=null", []),
    ],
)
def test_pictures_come_with_every_nth_validation_and_the_last(
    train, small_params, in_process, override, epochs
):
    params = small_params(
        "train.num_epochs=5", "train.steps_per_epoch=1", "train.validate_every=2", override
    )
    _, pictures, _ = _run(train, params, in_process)
    assert sorted({picture.epoch for picture in pictures}) == epochs
    assert {picture.pair for picture in pictures} <= {f"our485/{n}.png" for n in (6, 7, 8)}


def test_a_picture_shows_low_enhanced_and_reference(
    train, small_params, in_process, pairs_dir, val_ids
):
    params = small_params("train.num_epochs=1", "train.num_samples=2")
    result, pictures, _ = _run(train, params, in_process)
    assert [picture.pair for picture in pictures] == ["our485/6.png", "our485/7.png"]
    model = load_model(Path(result.model_dir)).eval()
    for picture, (low, high) in zip(pictures, load_pairs(pairs_dir, val_ids), strict=False):
        row = np.asarray(Image.open(io.BytesIO(picture.jpeg)), np.float32)
        assert row.shape == (40, 3 * 48 + 8, 3)
        batch = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255
        padded = torch.nn.functional.pad(batch, (0, 0, 0, 8), mode="reflect")
        with torch.inference_mode():
            enhanced = (model(padded)[0, :, :40].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        for start, expected in ((0, low), (52, enhanced), (104, high)):
            shown = row[:, start : start + 48]
            assert np.abs(shown - expected).mean() < 6  # JPEG
    assert chosen(3, 2) == {0, 1}
    assert chosen(100, 4) == {0, 25, 50, 75}
    assert chosen(2, 9) == {0, 1}


def test_each_epoch_says_how_busy_the_node_was(train, small_params, in_process):
    _, _, usage = _run(train, small_params(), in_process)
    assert [report.epoch for report in usage] == [0, 1]
    for report in usage:
        assert report.node
        assert 0 < report.values["system_memory_usage_percentage"] <= 100
        assert 0 <= report.values["cpu_utilization_percentage"] <= 100
        assert report.values["network_receive_megabytes"] >= 0


def test_pictures_survive_their_way_as_json():
    picture = SampleImage(epoch=3, pair="our485/1.png", jpeg=bytes(range(256)))
    assert SampleImage.model_validate_json(picture.model_dump_json()) == picture
