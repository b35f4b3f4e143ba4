"""The moving average covers running statistics as well as weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mirnet.params import load_params
from mirnet.training.checkpoints import TrainState
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.job import Job


def test_the_scored_network_has_averaged_running_statistics() -> None:
    pairs = pack_pairs(["one"], [(np.zeros((16, 16, 3), np.uint8),) * 2])
    params = load_params("cpu-mirnet", overrides=("model.name=sci", "train.ema_decay=0.75"))
    state = TrainState.start(Job(params, pairs, pairs, "d1"), torch.device("cpu"))
    seen: list[dict[str, Tensor]] = []
    for number in range(3):
        state.model.train()(torch.rand(2, 3, 16, 16) / (1 + number))
        state.update()
        seen.append({name: value.clone() for name, value in state.model.named_buffers()})
    scored = dict(state.scored.named_buffers())
    # those of SCI's calibration network stay as they are outside of its phase
    moved = [name for name in seen[0] if not torch.equal(seen[0][name], seen[-1][name])]
    assert any("running" in name for name in moved)
    for name in (each for each in moved if "running" in each):
        expected = seen[0][name]
        for later in seen[1:]:
            expected = 0.75 * expected + 0.25 * later[name]
        torch.testing.assert_close(scored[name], expected)
        assert not torch.allclose(scored[name], seen[-1][name], rtol=1e-4)
