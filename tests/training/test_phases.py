"""Phases of a training: their steps, what each trains, and what is scored."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import fs
from torch import Tensor

from mirnet.errors import UsageError
from mirnet.models.layers.conditional_flow import Flow
from mirnet.params import Params, load_params
from mirnet.training.checkpoints import BEST, TrainState, read_progress
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.job import Job
from mirnet.training.loop import fit
from mirnet.training.phases import spans_of
from mirnet.training.store import CheckpointStore


def params(*overrides: str) -> Params:
    recipe = (
        *("train.num_epochs=4", "train.steps_per_epoch=2", "train.batch_size=2", "train.lr=1e-3"),
        *("train.patch_size=16", "train.precision=float32", "train.validate_every=1"),
    )
    return load_params("cpu-mirnet", overrides=(*recipe, *overrides))


@pytest.fixture
def pairs() -> PackedPairs:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    return pack_pairs(["a", "b", "c"], [(image // 4, image) for image in images])


def names_and_steps(asked: Params, total: int) -> list[tuple[str | None, int, int]]:
    return [(span.name, span.start, span.stop) for span in spans_of(asked, total)]


def test_steps_of_phases() -> None:
    retinexnet = params("model.name=retinexnet-s")
    halves = [("decomposition", 0, 50), ("relighting", 50, 100)]
    assert names_and_steps(retinexnet, 100) == halves
    assert names_and_steps(retinexnet, 1) == [("relighting", 0, 1)]
    mobileie = params("model.name=mobileie")
    assert names_and_steps(mobileie, 2010) == [("warm-up", 0, 10), ("main", 10, 2010)]
    assert names_and_steps(mobileie, 8) == [("warm-up", 0, 1), ("main", 1, 8)]
    uneven = params("model.name=retinexnet-s", "train.phases={relighting: 0.5, decomposition: 0.1}")
    assert names_and_steps(uneven, 60) == [("decomposition", 0, 10), ("relighting", 10, 60)]
    for without in ("null", "{}"):
        joint = params("model.name=retinexnet-s", f"train.phases={without}")
        assert names_and_steps(joint, 9) == [(None, 0, 9)]


def test_a_loss_of_ones_own_is_trained_in_one_phase() -> None:
    assert params("model.name=retinexnet-s", "train.loss={l1: 1}").train.phases is None
    more = json.dumps(params("model.name=sci").train.loss | {"exposure": 1.0})
    assert params("model.name=sci", f"train.loss={more}").train.phases == {"self-calibrated": 1.0}


def test_phases_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="SCI has no phase 'main'; it has self-calibrated"):
        params("model.name=sci", "train.phases={main: 1}")
    with pytest.raises(UsageError, match="no term for the phase decomposition"):
        params(
            *("model.name=retinexnet-s", "train.loss={retinex-relight: 1}"),
            "train.phases={decomposition: 0.5, relighting: 0.5}",
        )


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Tensor]]]:
    """The parameters before each step and after the last."""
    seen: list[dict[str, Tensor]] = []
    update = TrainState.update

    def copied(state: TrainState) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in state.model.named_parameters()}

    def watch(state: TrainState) -> None:
        if not seen:
            seen.append(copied(state))
        update(state)
        seen.append(copied(state))

    monkeypatch.setattr(TrainState, "update", watch)
    yield seen


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_retinexnet_trains_its_decomposition_then_relights(
    watched: list[dict[str, Tensor]], pairs: PackedPairs, tmp_path: Path
) -> None:
    loss = json.dumps(params("model.name=retinexnet-s").train.loss | {"l1": 1.0})
    asked = params("model.name=retinexnet-s", "model.width=4", f"train.loss={loss}")
    context = InProcess(CheckpointStore(fs.LocalFileSystem(), str(tmp_path)))
    fit(context, Job(asked, pairs, pairs, "d1"))
    moved = [changed(*each) for each in itertools.pairwise(watched)]
    assert moved == [{"DecomNet"}] * 4 + [{"RelightNet"}] * 4
    with context.restored() as folder:
        assert folder is not None
        progress = read_progress(folder)
        assert (folder / BEST / "weights.safetensors").is_file()
    terms = [set(epoch.train_parts) for epoch in progress.history]
    decomposition = {"retinex-reconstruction", "retinex-exchange", "retinex-reflectance", "l1"}
    assert terms[:2] == [decomposition | {"retinex-smoothness"}] * 2
    assert terms[2:] == [{"retinex-relight", "retinex-relight-smoothness", "l1"}] * 2
    assert progress.best_epoch >= 2, "an unfinished network was chosen"


@pytest.mark.parametrize(
    ("name", "parts", "warm"), [("sci", "calibrate.", 0), ("mobileie", "tail_warm.", 1)]
)
def test_parts_of_training_are_trained_and_not_stored(
    name: str,
    parts: str,
    warm: int,
    watched: list[dict[str, Tensor]],
    pairs: PackedPairs,
    tmp_path: Path,
) -> None:
    asked = params(f"model.name={name}", "train.num_epochs=1", "train.ema_decay=0.5")
    context = InProcess(CheckpointStore(fs.LocalFileSystem(), str(tmp_path)))
    fit(context, Job(asked, pairs, pairs, "d1"))
    module = parts.rstrip(".")
    moved = [changed(*each) for each in itertools.pairwise(watched)]
    assert [module in each for each in moved] == [name == "sci" or step < warm for step in (0, 1)]
    with context.restored() as folder:
        assert folder is not None
        state = TrainState.start(Job(asked, pairs, pairs, "d1"), torch.device("cpu"))
        state.load(folder)
    assert any(key.startswith(parts) for key in state.model.state_dict())
    assert state.best.keys() == asked.model.config.build().state_dict().keys()


@pytest.mark.parametrize(("loss", "passes"), [({}, 0), ({"l1": 1.0}, 2)])
def test_llflow_is_inverted_only_for_terms_that_read_its_output(
    loss: dict[str, float],
    passes: int,
    pairs: PackedPairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terms = json.dumps({"flow-likelihood": 1.0} | loss)
    sizes = {"width": 4, "growth": 4, "blocks": 2, "steps": 1, "hidden": 4}
    asked = params(
        *("model.name=llflow-s", f"train.loss={terms}", "train.num_epochs=1"),
        *(f"model.{key}={value}" for key, value in sizes.items()),
    )
    inverted: list[bool] = []
    reverse = Flow.reverse

    def watch(flow: Flow, *given: Any) -> Tensor:
        inverted.append(flow.training)
        return reverse(flow, *given)

    monkeypatch.setattr(Flow, "reverse", watch)
    context = InProcess(CheckpointStore(fs.LocalFileSystem(), str(tmp_path)))
    fit(context, Job(asked, pairs, pairs, "d1"))
    assert sum(inverted) == passes
    with context.restored() as folder:
        assert folder is not None
        (epoch,) = read_progress(folder).history
    assert (epoch.train_psnr is None) == (passes == 0)
