"""Every preset runs: its whole recipe, on the smallest size of its network."""

from __future__ import annotations

import pytest

from mirnet.models import load_model
from mirnet.params import load_params, preset_names

# what makes a run of seconds out of a recipe, and changes none of its methods
SMALL = (
    "train.num_epochs=4",
    "train.steps_per_epoch=2",
    "train.batch_size=2",
    "train.patch_size=32",
    "train.validate_every=2",
    "train.checkpoint_every=1",
    "train.precision=float32",
    "train.compile=false",
)
SIZES = {
    "mirnet": ("model.n_feat=8", "model.num_rrg=1", "model.num_msrb=1"),
    "mirnet-v2": ("model.n_feat=16", "model.num_rrg=1", "model.num_msrb=1"),
    "resunet": ("model.width=4", "model.num_blocks=1"),
}


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_runs(preset, train, in_process):
    whole = load_params(preset)
    stages = [
        stage.model_copy(update={"patch_size": 32, "batch_size": 2 + number}).model_dump()
        for number, stage in enumerate(whole.train.progressive, 1)
    ]
    family = whole.model.config.architecture.family
    small = (*SMALL, *SIZES[family], f"train.progressive={stages}")
    params = load_params(preset, overrides=small)
    kept = params.train.model_dump()
    shrunk = {name.partition("=")[0].removeprefix("train.") for name in SMALL} | {"progressive"}
    for key, value in whole.train.model_dump().items():
        assert key in shrunk or kept[key] == value

    result = train(params, in_process)
    assert [m.step for m in result.history] == [2, 4, 6, 8]
    assert result.best_val_psnr > 5
    made = load_model(in_process.workspace.parent / "model")
    assert made.config.architecture.family == family
