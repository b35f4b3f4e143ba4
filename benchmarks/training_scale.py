"""How a preset scales, on paper: ``python -m benchmarks.training_scale [--step-s SECONDS]``.

Bytes of gradient and checkpoint are measured here by building and saving the network; the step time
of one GPU is an assumption until you give your own (``benchmarks/training.py`` on that GPU).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from mirnet.models import num_parameters
from mirnet.params import Params, load_params
from mirnet.training.checkpoints import TrainState, copy_weights
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.job import Job

NUM_TRAIN, NUM_VAL = 437, 48  # LoL with a tenth of its training pairs for validation
PAIR_BYTES = 2 * 600 * 400 * 3


@dataclass(frozen=True)
class Assumed:
    """What was not measured here."""

    step_s: float  # of a whole batch of 16 on one GPU
    score_s: float  # of one validation image on one GPU
    gpus_a_node: int = 8
    in_node: float = 300e9  # bytes per second, each way
    latency_s: float = 20e-6  # of a message between nodes
    store: float = 200e6  # bytes per second from one worker
    start_s: float = 60.0
    gpu_hour: float = 3.0


@dataclass(frozen=True)
class Row:
    gpus: int
    batch: int
    compute_s: float
    sync_s: float
    exposed_s: float
    total_s: float


def measured(params: Params) -> tuple[int, int]:
    """Bytes of the gradient and of a checkpoint."""
    empty = pack_pairs([], [])
    job = Job(params, empty, PackedPairs((), empty.sizes, empty.pixels), "none")
    state = TrainState.start(job, torch.device("cpu"))
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.update()
    state.best = copy_weights(state.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state.save(folder)
        checkpoint = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return 4 * num_parameters(params.model.config.build()), checkpoint


def sync_seconds(gradient: int, gpus: int, network: float, assumed: Assumed) -> float:
    """A ring within each node, then one over the nodes (NCCL's usual plan)."""
    inside, nodes = min(gpus, assumed.gpus_a_node), math.ceil(gpus / assumed.gpus_a_node)
    seconds = 2 * (inside - 1) / inside * gradient / assumed.in_node
    if nodes > 1:
        seconds += 2 * (nodes - 1) / nodes * gradient / network + 2 * nodes * assumed.latency_s
    return seconds


def row(params: Params, gpus: int, network: float, gradient: int, assumed: Assumed) -> Row:
    """The recipe's batch as far as it goes, then one patch a GPU: another recipe."""
    recipe = params.train
    batch = max(recipe.batch_size, gpus)
    compute = assumed.step_s * math.ceil(batch / gpus) / recipe.batch_size
    sync = sync_seconds(gradient, gpus, network, assumed)
    exposed = max(0.0, sync - compute * 2 / 3)  # the backward pass hides the rest
    steps = recipe.num_epochs * math.ceil(NUM_TRAIN / batch)
    scores = recipe.num_epochs / recipe.validate_every * math.ceil(NUM_VAL / gpus)
    seconds = steps * (compute + exposed) + scores * assumed.score_s + assumed.start_s
    return Row(gpus, batch, compute, sync, exposed, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--step-s", type=float, default=0.25, help="of a batch of 16, one GPU")
    parser.add_argument("--score-s", type=float, default=0.08, help="of a validation image")
    parser.add_argument("--gpu-hour", type=float, default=3.0)
    arguments = parser.parse_args()
    params = load_params(arguments.preset)
    gradient, checkpoint = measured(params)
    assumed = Assumed(arguments.step_s, arguments.score_s, gpu_hour=arguments.gpu_hour)
    pairs = (NUM_TRAIN + NUM_VAL) * PAIR_BYTES
    print(f"gradient {gradient / 1e6:.0f} MB, checkpoint {checkpoint / 1e6:.0f} MB, ", end="")
    print(f"decoded pairs {pairs / 1e6:.0f} MB per node")
    print(f"a checkpoint takes {checkpoint / assumed.store:.1f} s to the store, beside the steps")
    print("| GPUs | batch | compute | sync at 200, 25, 10 Gbit/s | hours | efficiency | cost |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        rows = [row(params, gpus, gbit / 8 * 1e9, gradient, assumed) for gbit in (200, 25, 10)]
        sync = ", ".join(f"{1000 * r.sync_s:.0f}" for r in rows)
        hours = ", ".join(f"{r.total_s / 3600:.2f}" for r in rows)
        share = ", ".join(f"{r.compute_s / (r.compute_s + r.exposed_s):.0%}" for r in rows)
        cost = rows[0].total_s * gpus / 3600 * assumed.gpu_hour
        print(
            f"| {gpus} | {rows[0].batch} | {1000 * rows[0].compute_s:.0f} ms | {sync} ms | "
            f"{hours} | {share} | {cost:.0f} |"
        )


if __name__ == "__main__":
    main()
