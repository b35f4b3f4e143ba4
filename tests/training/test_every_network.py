"""What the loop promises holds for every network, in each phase of its training.

Two workers and parts of a batch give the gradient of the whole batch; a stopped run goes on as if
it had not been stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import fs
from safetensors.torch import load_file
from torch import Tensor

from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.models.registry import by_name
from mirnet.params import Params, load_params
from mirnet.training.checkpoints import TrainState, read_progress
from mirnet.training.context import Context, InProcess
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.data.sampling import share
from mirnet.training.job import Job
from mirnet.training.launch import check_request
from mirnet.training.loop import StepOf, TrainingPass, fit
from mirnet.training.request import TrainRequest
from mirnet.training.store import CheckpointStore
from tests.models.test_zoo import SMALL
from tests.training.groups import GroupContext, Run
from tests.training.test_objectives import train_alone_until

SIZES = SMALL | {
    "mirnet-xs": {"n_feat": 8},
    "mirnet-v2": {"n_feat": 16, "num_rrg": 1, "num_msrb": 1},
}
QUICK = {"sci", "mobileie", "retinexnet-s"}  # those with phases
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(SIZES)
]
BATCH = 5  # uneven over two workers

Gradients = dict[str, Tensor]


def params(name: str, *overrides: str) -> Params:
    multiple = by_name(name).size_multiple
    recipe = (
        *(f"model.name={name}", f"train.patch_size={-(-16 // multiple) * multiple}"),
        *(f"model.{key}={json.dumps(value)}" for key, value in SIZES[name].items()),
        *("train.num_epochs=2", "train.steps_per_epoch=3", f"train.batch_size={BATCH}"),
        *("train.precision=float32", "train.checkpoint_every=2", "train.ema_decay=0.5"),
        *("train.lr=1e-3", "train.grad_clip=null"),
    )
    return load_params("cpu-mirnet", overrides=(*recipe, *overrides))


def pairs(count: int) -> PackedPairs:
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 256, (40, 44, 3), dtype=np.uint8) for _ in range(count)]
    return pack_pairs([f"{n}" for n in range(count)], [(image // 4, image) for image in images])


def gradients(context: Context, asked: Params) -> list[Gradients]:
    """Of the parameters that learn, in the first step of each phase, on this worker's part."""
    job = Job(asked, pairs(BATCH), pairs(2), "d1")
    state = TrainState.start(job, torch.device("cpu"))
    training_pass = TrainingPass(state)
    wrapped = context.wrap(training_pass, partial=True)
    step_of = StepOf(context, asked.train.accumulate, wrapped, state.scaler)
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, BATCH, 3, *[asked.train.patch_size] * 2, generator=generator)
    part = share(BATCH, rank=context.rank, world_size=context.world_size)
    found = []
    for span in job.spans:
        state.progress.step = span.start
        state.start_step()
        step_of(low[part] / 4, high[part], batch_size=BATCH)
        state.clip()
        named = state.model.named_parameters()
        found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        state.optimizer.zero_grad()
    return found


def in_group(folder: Path, asked: Params) -> list[Gradients]:
    return gradients(GroupContext(folder), asked)


def alone(folder: Path) -> InProcess:
    return InProcess(CheckpointStore(fs.LocalFileSystem(), str(folder)))


def assert_close(found: list[Gradients], expected: list[Gradients]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        largest = max(float(value.abs().max()) for value in other.values())
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, rtol=1e-3, atol=1e-4 * largest, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_two_workers_have_the_gradients_of_one(name: str, group: Run, tmp_path: Path) -> None:
    expected = gradients(alone(tmp_path), params(name))
    first, second = group(in_group, tmp_path, params(name))
    assert_close(first, expected)
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_have_its_gradients_or_are_refused(
    name: str, in_process: Settings, tmp_path: Path
) -> None:
    parts = params(name, "train.accumulate=3")
    entry = by_name(name)
    if not entry.batch_statistics:
        whole = gradients(alone(tmp_path), params(name))
        assert_close(gradients(alone(tmp_path), parts), whole)
        return
    request = TrainRequest(
        root=tmp_path,
        train_ids=("a",),
        val_ids=("b",),
        params=parts,
        settings=in_process,
        digest="d1",
        run_name="run",
        model_dir=tmp_path,
    )
    with pytest.raises(UsageError, match=rf"train\.accumulate 3: {entry.title} normalises"):
        check_request(request)


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_bit_by_bit(name: str, tmp_path: Path) -> None:
    job = Job(params(name), pairs(BATCH), pairs(2), "d1")
    fit(alone(tmp_path / "whole"), job)
    train_alone_until(job, tmp_path / "stopped", 3)  # the last checkpoint is of step 2
    fit(alone(tmp_path / "stopped"), job)
    found = []
    for kind in ("whole", "stopped"):
        with alone(tmp_path / kind).restored() as folder:
            assert folder is not None
            tensors = {n: load_file(folder / f"{n}.safetensors") for n in ("weights", "ema")}
            scores = [epoch.val_psnr for epoch in read_progress(folder).history]
            found.append((tensors, scores, torch.load(folder / "optimizer.pt", weights_only=True)))
    (one, one_scores, one_optimizer), (two, two_scores, two_optimizer) = found
    assert one_scores == two_scores
    for average in ("weights", "ema"):
        assert one[average].keys() == two[average].keys()
        assert all(torch.equal(one[average][key], two[average][key]) for key in one[average])
    assert any(not torch.equal(one["weights"][key], one["ema"][key]) for key in one["ema"])
    torch.testing.assert_close(one_optimizer["state"], two_optimizer["state"], rtol=0, atol=0)
