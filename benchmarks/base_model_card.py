"""The card of the model in the package, from facts of the run that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mirnet import base_model
from mirnet.data.samples import Photograph
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
{train} pairs for training, {val} others of the same scenes for the choice of the epoch, {held} of
other scenes for the scores. The photographs are in the wheels of the named packages; a model of a
camera darkens them. DVC's digest of the pairs: `{digest}`.

{sources}

## Scores
Means over 8-bit RGB images. *GT-mean PSNR*: after the output was scaled to the mean brightness of
the reference. That needs the reference, so it is no result of the model alone.

### Held-out scenes
Photographs that training never saw, darkened by the same model of a camera. They are two scenes:
the figures show that the network works, not how well it does on your images.

{held_out}
{real}
## Limits
- Five photographs, darkened by a model: real noise, lamps, motion blur and other cameras are not in
  the data. Colours and brightness of night photographs may come out wrong.
- `mirnet enhance` keeps an image as it was if its output fails the safety checks.
- Details in the dark are a guess: no evidence, and nothing to decide about people by.
- A model trained on pairs of your camera is better.

## Licence
Weights: Apache-2.0, as the package. The photographs have the licences of the table and are not in
the package.
"""

_REAL = """
### Real pairs
Real pairs of another camera, from the training half of LoL, which is not part of this package. The
model was neither trained nor chosen on them.

{table}
"""


@dataclass(frozen=True)
class Score:
    """Means over the images of one scene, or of all."""

    scene: str
    method: str
    num_images: int
    psnr: float
    ssim: float
    gt_mean_psnr: float


@dataclass(frozen=True)
class Facts:
    """What the card says beside the recipe."""

    sources: Sequence[tuple[Photograph, str, str]]
    """Photograph, version of its package, SHA-256 of its file."""
    data_digest: str
    num_pairs: tuple[int, int, int]
    """For training, choice of the epoch, scores."""
    core_minutes: float
    held_out: Sequence[Score]
    real: Sequence[Score]


def card(facts: Facts) -> str:
    """The card as Markdown."""
    recipe = load_params(base_model.RECIPE)
    train, val, held = facts.num_pairs
    patch = recipe.train.patch_size
    real = _REAL.format(table=_table(facts.real)) if facts.real else ""
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
            ("photograph", "file", "SHA-256", "author", "licence", "used for"),
            (_source(*source) for source in facts.sources),
        ),
        held_out=_table(facts.held_out),
        real=real,
    )


def _source(photo: Photograph, version: str, digest: str) -> tuple[str, ...]:
    used = "training" if photo.split == "our485" else "scores"
    file = f"{photo.distribution} {version}, `{photo.resource}`"
    return (photo.name, file, f"`{digest}`", photo.author, photo.licence, used)


def _table(scores: Sequence[Score]) -> str:
    return markdown_table(
        ("scene", "method", "images", "PSNR dB", "SSIM", "GT-mean PSNR dB"),
        (
            (
                s.scene,
                s.method,
                s.num_images,
                f"{s.psnr:.2f}",
                f"{s.ssim:.3f}",
                f"{s.gt_mean_psnr:.2f}",
            )
            for s in scores
        ),
    )
