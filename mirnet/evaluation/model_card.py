"""The model card: data, recipe, scores, limits and licence of a model, as Markdown.

The same text is a file of the model package and the description of the version in the registry.
After Mitchell et al. 2019, https://arxiv.org/abs/1810.03993
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mirnet.evaluation.statistics import Gain
from mirnet.redaction import shown
from mirnet.results import EvaluationResult, MethodScore, TrainResult

CARD = "MODEL_CARD.md"
NO_LICENCE = (
    "The software that made the model is Apache-2.0. No licence of the training data is recorded: "
    "whoever passes the weights on has to know it."
)
UNKNOWN_LICENCE = (
    "No licence of the weights is recorded: whoever uses them or passes them on has to know the "
    "terms of their authors."
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
class TrainedElsewhere:
    """What is known of a model that comes as a folder. ``facts``: what the folder says itself."""

    model_name: str
    num_parameters: int
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model, for people who are about to use it.

    ``recipe``: parameters by ``section.key``, as the training run has them; unknown keys are left
    out. ``scored``: none if the model was not evaluated. ``worst``: image of the evaluation with
    the lowest PSNR, in dB. ``data``: sentence about the origin of the training images.
    """

    name: str
    trained: TrainResult | TrainedElsewhere
    recipe: Mapping[str, object] = field(default_factory=dict)
    git_commit: str | None = None
    scored: EvaluationResult | None = None
    candidate: str = "mirnet"
    worst: tuple[str, float] | None = None
    data: str = ""
    licence: str = ""

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
            f"## Licence\n{self.licence or self._no_licence()}",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _no_licence(self) -> str:
        return UNKNOWN_LICENCE if isinstance(self.trained, TrainedElsewhere) else NO_LICENCE

    def _data(self) -> Iterator[str]:
        if self.data:
            yield f"- {self.data}"
        if isinstance(self.trained, TrainedElsewhere):
            yield "- Not trained here: the training data are not recorded"
            return
        yield f"- Data version of DVC: `{shown(self.trained.digest)}`"
        yield "- Pairs of a dark and a well-lit image of the same scene"

    def _recipe(self) -> Iterator[str]:
        given = {label: self.recipe.get(key) for key, label in _RECIPE.items()}
        set_ones = {k: v for k, v in given.items() if v is not None and str(v) not in _UNSET}
        if set_ones:
            yield "- " + ", ".join(f"{k} {_plain(v)[:120]}" for k, v in set_ones.items())
        trained = self.trained
        if isinstance(trained, TrainedElsewhere):
            yield "- Not trained here, and registered from a folder of weights"
            for key, value in trained.facts.items():
                yield f"- {shown(str(key))[:80]}: {shown(str(value))[:200]}"
            return
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
        others = {name: score for name, score in scored.methods.items() if name != self.candidate}
        rows = {"**this model**": own} | {shown(name): score for name, score in others.items()}
        yield markdown_table(
            ("method", "PSNR, dB", "SSIM", "gain of this model"),
            (_row(name, score) for name, score in rows.items()),
        )

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


def _plain(value: object) -> str:
    """A value of the recipe; weighted terms, text in MLflow, without the spelling of Python."""
    text = shown(str(value))
    return text.strip("{}").replace("'", "").replace(":", "") if text.startswith("{") else text


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; the cards of all models write theirs with it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _row(name: str, score: MethodScore) -> tuple[str, ...]:
    low, high = score.psnr_interval
    bottom, top = score.ssim_interval
    return (
        name,
        f"{score.psnr:.2f} ({low:.2f} to {high:.2f})",
        f"{score.ssim:.4f} ({bottom:.4f} to {top:.4f})",
        str(Gain(*score.gain, score.num_images)) if score.gain else "",
    )


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n" + "\n".join(lines)
