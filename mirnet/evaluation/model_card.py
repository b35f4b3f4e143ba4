"""The model card: data, recipe, scores, limits and licence of a model, as Markdown.

The same text is a file of the model package and the description of the version in the registry.
After Mitchell et al. 2019, https://arxiv.org/abs/1810.03993
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mirnet.evaluation.statistics import Gain
from mirnet.redaction import shown
from mirnet.results import EvaluationResult, MethodScore, TrainResult

CARD = "MODEL_CARD.md"
NO_LICENCE = (
    "The software that made the model is Apache-2.0. No licence of the training data is recorded: "
    "whoever passes the weights on has to know it."
)

# parameter of the run, label
_RECIPE = {
    "train.loss": "loss",
    "train.optimizer": "optimizer",
    "train.lr": "learning rate",
    "train.schedule": "schedule",
    "train.batch_size": "batch size",
    "train.patch_size": "patch size, pixels per side",
    "train.num_epochs": "epochs",
    "train.steps_per_epoch": "steps per epoch",
    "train.ema_decay": "decay of the weight average",
    "train.seed": "seed",
    "train.init_from": "initial weights",
    "train.distill_from": "teacher",
}
_UNSET = ("None", "", "[]", "{}")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model, for people who are about to use it.

    ``recipe``: parameters by ``section.key``, as the training run has them; unknown keys are left
    out. ``scored``: none if the model was not evaluated. ``worst``: image of the evaluation with
    the lowest PSNR, in dB. ``data``: sentence about the origin of the training images.
    """

    name: str
    trained: TrainResult
    recipe: Mapping[str, object] = field(default_factory=dict)
    git_commit: str | None = None
    scored: EvaluationResult | None = None
    candidate: str = "mirnet"
    worst: tuple[str, float] | None = None
    data: str = ""
    licence: str = NO_LICENCE

    def text(self) -> str:
        """Markdown that ends with a newline; names are one line without control characters."""
        parts = [
            f"# {shown(self.name)}: brightens dark photographs",
            f"`{shown(self.trained.model_name)}`, {self.trained.num_parameters:,} parameters. "
            "Input and output: RGB images of the same size.",
            _section("Data", self._data()),
            _section("Recipe", self._recipe()),
            _section("Scores", self._scores()),
            _section("Limits", self._limits()),
            f"## Licence\n{self.licence}",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _data(self) -> Iterator[str]:
        if self.data:
            yield f"- {self.data}"
        yield f"- Data version of DVC: `{shown(self.trained.digest)}`"
        yield "- Pairs of a dark and a well-lit image of the same scene"

    def _recipe(self) -> Iterator[str]:
        given = {label: self.recipe.get(key) for key, label in _RECIPE.items()}
        set_ones = {k: v for k, v in given.items() if v is not None and str(v) not in _UNSET}
        if set_ones:
            yield "- " + ", ".join(f"{k} {shown(str(v))[:120]}" for k, v in set_ones.items())
        trained = self.trained
        yield (
            f"- {trained.seconds:.0f} s with {trained.num_workers} workers; best epoch "
            f"{trained.best_epoch}, {trained.best_val_psnr:.2f} dB on the validation pairs"
        )
        if self.git_commit:
            yield f"- Code: commit `{shown(self.git_commit)[:46]}`"

    def _scores(self) -> Iterator[str]:
        if self.scored is None or self.candidate not in self.scored.methods:
            yield "Not evaluated."
            return
        scored = self.scored
        own = scored.methods[self.candidate]
        yield (
            f"Means over {own.num_images} images of `{shown(scored.split)}`, data version "
            f"`{shown(scored.digest)}`, with 95 % intervals (bootstrap over images). The gain is "
            "paired, per image."
        )
        yield ""
        yield "| method | PSNR, dB | SSIM | gain of this model |"
        yield "| --- | --- | --- | --- |"
        yield _row("**this model**", own)
        for name, score in scored.methods.items():
            if name != self.candidate:
                yield _row(shown(name), score)

    def _limits(self) -> Iterator[str]:
        own = self.scored.methods.get(self.candidate) if self.scored else None
        if own is not None:
            yield f"- Measured on {own.num_images} images only; other cameras and scenes may differ"
            yield from _conduct(own.extra)
        if self.worst is not None:
            yield f"- Worst image: {shown(self.worst[0])}, {self.worst[1]:.2f} dB"
        yield "- Not for measurement or evidence: noise is replaced by an estimate, fine detail too"


def _conduct(extra: Mapping[str, float]) -> Iterator[str]:
    """Mean defects of the output, where they were measured."""
    figures = (
        ("added_clipping", "pixels clipped beyond the reference's: {:.2%}"),
        (
            "colour_cast",
            "distance of the mean colours from the reference's in the CIE Lab plane: {:.1f}",
        ),
        ("luma_ratio", "brightness over the reference's: {:.2f}"),
        ("well_lit_psnr", "well-lit images through a batch keep {:.1f} dB"),
        ("harm_share", "dark images whose output a batch rejects: {:.1%}"),
    )
    for key, text in figures:
        if key in extra:
            yield "- " + text.format(extra[key])


def _row(name: str, score: MethodScore) -> str:
    low, high = score.psnr_interval
    bottom, top = score.ssim_interval
    gain = str(Gain(*score.gain, score.num_images)) if score.gain else ""
    return (
        f"| {name} | {score.psnr:.2f} ({low:.2f} to {high:.2f}) | "
        f"{score.ssim:.4f} ({bottom:.4f} to {top:.4f}) | {gain} |"
    )


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n" + "\n".join(lines)
