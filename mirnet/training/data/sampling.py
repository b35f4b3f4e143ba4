"""The patches of every step, as a function of (seed, global step) only.

They depend neither on the number of workers nor on interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirnet.data.degradation import Degradation, DegradationRanges, darken, draw as draw_camera
from mirnet.params import TrainParams
from mirnet.training.data.pairs import PackedPairs

_ORDER, _CROPS, _PARTNERS, _LIGHT, _REPLAY = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Light:
    """How the dark patch is made from the reference.

    Attributes:
        camera: exposure, noise and development; none: the reference itself.
        noise_seed: of its noise.
    """

    camera: Degradation | None
    noise_seed: tuple[int, ...]

    def on(self, high: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The patch in this light, uint8 HWC RGB."""
        if self.camera is None:
            return high
        return darken(high, self.camera, np.random.default_rng(self.noise_seed))


@dataclass(frozen=True)
class Draw:
    """One sample: a pair, the position of the crop (0 to 1 of the free range), and its symmetry.

    With MixUp, ``partner`` takes ``1 - weight`` of the sample. ``light``: the dark patch is made
    from the reference; none: it is that of the pair.
    """

    pair: int
    top: float
    left: float
    symmetry: int
    partner: Draw | None = None
    weight: float = 1.0
    light: Light | None = None


@dataclass(frozen=True)
class StepPlan:
    batch_size: int
    patch_size: int
    first_sample: int
    mixup_alpha: float | None


@dataclass(frozen=True)
class _Stage:
    start: int
    samples_before: int
    batch_size: int
    patch_size: int


class Sampler:
    """The samples of every step of a run.

    Args:
        num_replayed: pairs of an earlier data set, which come behind the ``num_pairs``.
    """

    def __init__(
        self, recipe: TrainParams, *, num_pairs: int, total_steps: int, num_replayed: int = 0
    ) -> None:
        self._recipe = recipe
        self._num_pairs = num_pairs
        self._num_replayed = num_replayed
        self._mixup_from = recipe.mixup_start * total_steps
        self._stages = [_Stage(0, 0, recipe.batch_size, recipe.patch_size)]
        for stage in recipe.progressive:
            before, start = self._stages[-1], round(stage.start * total_steps)
            samples = before.samples_before + (start - before.start) * before.batch_size
            self._stages.append(_Stage(start, samples, stage.batch_size, stage.patch_size))

    def plan(self, step: int) -> StepPlan:
        """Batch and patch size of a step, and the number of samples before it."""
        stage = [stage for stage in self._stages if stage.start <= step][-1]
        return StepPlan(
            batch_size=stage.batch_size,
            patch_size=stage.patch_size,
            first_sample=stage.samples_before + (step - stage.start) * stage.batch_size,
            mixup_alpha=self._recipe.mixup_alpha if step >= self._mixup_from else None,
        )

    def draws(self, step: int) -> list[Draw]:
        """The samples of a global batch. Every pair is used once before any is used again.

        With replay, replayed pairs take the places of some.
        """
        plan, seed = self.plan(step), self._recipe.seed
        pairs = _pair_order(seed, plan.first_sample, plan.batch_size, self._num_pairs)
        pairs = self._replayed(pairs, step)
        draws = _crops(np.random.default_rng((seed, _CROPS, step)), pairs, self._recipe)
        draws = self._lit(draws, step)
        if plan.mixup_alpha is None:
            return draws
        rng = np.random.default_rng((seed, _PARTNERS, step))
        partners = _crops(rng, rng.integers(0, self._num_pairs, plan.batch_size), self._recipe)
        weights = rng.beta(plan.mixup_alpha, plan.mixup_alpha, plan.batch_size)
        return [
            replace(draw, partner=partner, weight=float(weight))
            for draw, partner, weight in zip(draws, partners, weights, strict=True)
        ]

    def _replayed(self, pairs: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        replay = self._recipe.replay
        if replay is None or not self._num_replayed:
            return pairs
        rng = np.random.default_rng((self._recipe.seed, _REPLAY, step))
        earlier = self._num_pairs + rng.integers(0, self._num_replayed, len(pairs))
        return np.where(rng.random(len(pairs)) < replay.share, earlier, pairs)

    def _lit(self, draws: Sequence[Draw], step: int) -> list[Draw]:
        """Some of the samples at another exposure."""
        relight, seed = self._recipe.relight, self._recipe.seed
        if relight is None:
            return list(draws)
        rng = np.random.default_rng((seed, _LIGHT, step))
        ranges = DegradationRanges(exposure=(relight.darkest, 1.0))
        lit = []
        for number, sample in enumerate(draws):
            # all are drawn, so that a sample's light does not depend on those before it
            chosen, kept = rng.random(2) < (relight.share, relight.well_lit)
            camera = draw_camera(ranges, rng)
            light = Light(None if kept else camera, (seed, _LIGHT, step, number))
            lit.append(replace(sample, light=light) if chosen else sample)
        return lit


def _crops(rng: np.random.Generator, pairs: NDArray[np.int64], recipe: TrainParams) -> list[Draw]:
    corners = rng.random((len(pairs), 2))
    symmetries = rng.integers(0, 8, len(pairs)) * recipe.symmetries
    return [
        Draw(int(pair), float(top), float(left), int(symmetry))
        for pair, (top, left), symmetry in zip(pairs, corners, symmetries, strict=True)
    ]


def _pair_order(seed: int, first: int, count: int, num_pairs: int) -> NDArray[np.int64]:
    """Positions ``first..first+count`` of an endless chain of permutations."""
    rounds = range(first // num_pairs, (first + count - 1) // num_pairs + 1)
    chain = np.concatenate(
        [np.random.default_rng((seed, _ORDER, r)).permutation(num_pairs) for r in rounds]
    )
    start = first - rounds.start * num_pairs
    return chain[start : start + count]


def share(batch_size: int, *, rank: int, world_size: int) -> slice:
    """The part of a global batch for a worker; sizes differ by at most one."""
    return slice(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)


def load_batch(
    pairs: PackedPairs, draws: Sequence[Draw], *, patch_size: int
) -> tuple[Tensor, Tensor]:
    """Cut the patches: low and high, float32 (N, 3, P, P) in [0, 1], RGB, channels last."""
    # numpy, since a second thread with an OpenMP pool would keep that of the training thread from
    # waiting actively, which costs a third of a step
    both = _cut_all(pairs, draws, patch_size)
    partners = [draw.partner for draw in draws if draw.partner is not None]
    if partners:
        others = _cut_all(pairs, partners, patch_size)
        weights = np.array([draw.weight for draw in draws], np.float32).reshape(1, -1, 1, 1, 1)
        both = others + weights * (both - others)
    low, high = torch.from_numpy(both).permute(0, 1, 4, 2, 3)
    return low, high


def _cut_all(pairs: PackedPairs, draws: Sequence[Draw], patch_size: int) -> NDArray[np.float32]:
    """(2, N, P, P, 3): lows, then highs."""
    patches = np.empty((2, len(draws), patch_size, patch_size, 3), np.uint8)
    for number, sample in enumerate(draws):
        low, high = pairs.pair(sample.pair)
        patches[1, number] = cut(high, sample, patch_size)
        if sample.light is None:
            patches[0, number] = cut(low, sample, patch_size)
        else:
            patches[0, number] = sample.light.on(patches[1, number])
    scaled = patches.astype(np.float32)
    scaled /= 255
    return scaled


def cut(image: NDArray[np.uint8], draw: Draw, patch_size: int) -> NDArray[np.uint8]:
    """One square crop, HWC, in one of the eight symmetries of the square."""
    height, width = image.shape[:2]
    top, left = corner(draw, height, width, patch_size)
    crop = image[top : top + patch_size, left : left + patch_size]
    if draw.symmetry & 4:
        crop = crop.transpose(1, 0, 2)
    vertical = slice(None, None, -1) if draw.symmetry & 1 else slice(None)
    horizontal = slice(None, None, -1) if draw.symmetry & 2 else slice(None)
    return crop[vertical, horizontal]


def corner(draw: Draw, height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Row and column of the crop's first pixel in an image of that size."""
    return int(draw.top * (height - patch_size + 1)), int(draw.left * (width - patch_size + 1))
