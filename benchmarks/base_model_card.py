"""The card of the model in the package, from facts of the run that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.photographs import Photograph, read_table
from mirnet import base_model
from mirnet.evaluation.model_card import markdown_table
from mirnet.params import load_params

_CARD = """\
# {title}
**{note}.** The model in the package `mirnet-pipeline`, for a first image before there is a
champion. Written by `make base-model`.

## Network and recipe
{network}, weights in float16. {steps} steps of {patches}, {recipe.optimizer} {recipe.lr:g},
{recipe.schedule} schedule, loss {loss}, average of the weights {recipe.ema_decay:g}, seed
{recipe.seed}: about {minutes:.0f} core minutes. All values: `mirnet/base_model/recipe.yaml`.

## Data
{train} pairs for training, {val} of other photographs for the choice of the epoch, {held} of others
again for the scores: crops of the photographs below, darkened by a model of a camera in any light
(`mirnet data synthesize --wide`), some of them not at all. DVC's digest of the pairs: `{digest}`.

## Scores
Means over 8-bit RGB images. *GT-mean PSNR*: after the output was scaled to the mean brightness of
the reference. That needs the reference, so it is no result of the model alone.

### Held-out photographs
Photographs that training never saw, darkened by the same model of a camera.

{held_out}
{real}
## Limits
- Darkened by a model: lamps, motion blur and the noise of phones are not in the data. Colours and
  brightness of night photographs may come out wrong.
- `mirnet enhance` keeps an image as it was if its output fails the safety checks.
- Details in the dark are a guess: no evidence, and nothing to decide about people by.
- A model trained on pairs of your camera is better.

## Licence
Weights: Apache-2.0, as the package. The photographs have the licences of the table and are not in
the package.

## Photographs
`python -m benchmarks.photographs FOLDER` assembles them; `benchmarks/photographs.csv` says where
each licence is stated.

{sources}
"""

_REAL = """
### Real pairs
Real pairs of another camera, from the training half of LoL, which is not part of this package. The
model was neither trained nor chosen on them.

{table}

Their well-lit references as inputs keep {lit.psnr:.2f} dB and {lit.ssim:.3f} SSIM.
"""

_NIGHT = """
### Night photographs
Mean NIQE (lower is more natural) of photographs taken at night, without a reference: {figures}.
"""


@dataclass(frozen=True)
class Score:
    """Means over images."""

    method: str
    num_images: int
    psnr: float
    ssim: float
    gt_mean_psnr: float


@dataclass(frozen=True)
class Facts:
    """What the card says beside the recipe."""

    sources: Mapping[str, str]
    """What each photograph was used for, by name."""
    data_digest: str
    num_pairs: tuple[int, int, int]
    """For training, choice of the epoch, scores."""
    core_minutes: float
    held_out: Sequence[Score]
    real: Sequence[Score]
    well_lit: Score | None
    """Of the real pairs' references as inputs."""
    night: Mapping[str, float]
    """Mean NIQE by method."""


def card(facts: Facts) -> str:
    """The card as Markdown."""
    recipe = load_params(base_model.RECIPE)
    train, val, held = facts.num_pairs
    patch = recipe.train.patch_size
    real = _REAL.format(table=_table(facts.real), lit=facts.well_lit) if facts.real else ""
    if facts.night:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in facts.night.items())
        real += _NIGHT.format(figures=figures)
    return _CARD.format(
        title=f"{base_model.NAME} {base_model.VERSION}",
        note=base_model.NOTE.capitalize(),
        network=recipe.model.config,
        steps=recipe.train.num_epochs * (recipe.train.steps_per_epoch or 0),
        patches=f"{recipe.train.batch_size} patches of {patch}x{patch}",
        recipe=recipe.train,
        loss=" + ".join(f"{weight:g} {name}" for name, weight in recipe.train.loss.items()),
        minutes=facts.core_minutes,
        train=train,
        val=val,
        held=held,
        digest=facts.data_digest,
        sources=markdown_table(
            ("photograph", "source", "file", "SHA-256", "author", "licence", "used for"),
            (_source(photo, facts.sources[photo.name]) for photo in read_table()),
        ),
        held_out=_table(facts.held_out),
        real=real,
    )


def _source(photo: Photograph, used: str) -> tuple[str, ...]:
    source = f"{photo.source} {photo.version}"
    digest = f"`{photo.sha256}`"
    return (photo.name, source, f"`{photo.path}`", digest, photo.author, photo.licence, used)


def _table(scores: Sequence[Score]) -> str:
    return markdown_table(
        ("method", "images", "PSNR dB", "SSIM", "GT-mean PSNR dB"),
        (
            (
                s.method,
                s.num_images,
                f"{s.psnr:.2f}",
                f"{s.ssim:.3f}",
                f"{s.gt_mean_psnr:.2f}",
            )
            for s in scores
        ),
    )
