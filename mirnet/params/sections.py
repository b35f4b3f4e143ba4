"""The sections of params: bounds and a description on every field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from mirnet.errors import UsageError
from mirnet.images.formats import SUFFIXES
from mirnet.models.registry import NetworkConfig, Phase, by_name, configure
from mirnet.objectives.registry import by_name as objective_named
from mirnet.params.recipe import Precision, Section, TrainParams, patch_sizes_near
from mirnet.params.taste import Taste


class ValidateParams(Section):
    """Thresholds of the data gate and the split of the training pairs."""

    seed: int = Field(0, ge=0, description="seed of the validation split")
    val_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="share of the training pairs, by scene, kept for validation"
    )
    min_side: int = Field(128, ge=8, description="pixels; a smaller image blocks")
    min_low_p99: float = Field(
        8.0, ge=0, le=255, description="99th percentile of the low, grey level; below: nearly black"
    )
    max_high_clipped: float = Field(
        0.25, ge=0, le=1, description="share of the high's pixels at 250 and above; more: saturated"
    )
    min_alignment: float = Field(
        0.28, ge=0, le=1, description="correlation of local contrast; below: misaligned"
    )
    max_shift: float = Field(1.5, gt=0, description="shift in pixels, per axis; above: misaligned")
    max_flagged_share: float = Field(
        0.1, ge=0, le=1, description="share of pairs with one kind of warning above which it blocks"
    )
    accept: tuple[str, ...] = Field(
        (), description="checks that warn instead of blocking, e.g. leak-exact"
    )


class ModelParams(Section):
    """Which network, and its sizes; those that are not given are of the named network."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("mirnet-xs", description="network by name")

    @property
    def config(self) -> NetworkConfig:
        """The named network with these sizes."""
        return configure(self.name, **(self.model_extra or {}))

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: value for k, value in values.items() if value is not None or k == "name"}

    @model_validator(mode="after")
    def _known(self) -> ModelParams:
        assert self.config  # raises for what is not known
        return self


class EvaluateParams(Section):
    """What is scored."""

    split: Literal["eval15", "val"] = Field(
        "eval15", description="evaluation pairs; val is used if eval15 is missing"
    )
    baselines: tuple[str, ...] = Field(
        ("input", "autocontrast", "autocontrast-tone", "gamma", "equalize", "clahe"),
        description="methods scored beside the model, each in its own MLflow run",
    )
    bootstrap_samples: int = Field(2000, ge=100, le=100_000, description="resamples of intervals")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


class PromoteParams(Section):
    """Rules and margins of the promotion gate."""

    name: str = Field("mirnet", min_length=1, description="registered model name")
    min_gain_db: float = Field(
        0.5, description="lower bound of the paired PSNR gain over autocontrast, dB"
    )
    criterion: Literal["aligned", "plain"] = Field(
        "aligned",
        description="PSNR that decides between candidate and champion: aligned to the reference's "
        "mean brightness (gt_mean_psnr), which tells them apart with far fewer images; or plain",
    )
    max_loss_db: float = Field(
        0.0,
        ge=0,
        description="allowed loss of a candidate against the champion in the criterion, dB",
    )
    max_plain_loss_db: float | None = Field(
        0.0,
        ge=0,
        description="loss of plain PSNR against the champion, dB; surely more is "
        "refused; none: off",
    )
    max_slice_loss_db: float | None = Field(
        1.0,
        ge=0,
        description="loss against the champion on a third of the images by darkness, "
        "colourfulness or noise, dB; surely more is refused; none: off",
    )
    baseline: str = Field("autocontrast", description="the method that a candidate must beat")
    min_images: int = Field(5, ge=2, description="evaluation images needed")
    max_added_clipping: float | None = Field(
        0.1, ge=0, le=1, description="share of pixels clipped beyond the reference's; none: off"
    )
    max_colour_cast: float | None = Field(
        12.0, ge=0, description="mean distance of mean colours in CIE a*b*; none: off"
    )
    min_luma_ratio: float | None = Field(
        0.6, ge=0, le=1, description="mean brightness over the reference's; none: off"
    )
    min_well_lit_psnr_db: float | None = Field(
        20.0, ge=0, description="PSNR of well-lit images after a batch; none: off"
    )
    max_harm_share: float | None = Field(
        None, ge=0, le=1, description="share of dark images rejected by enhance; none: off"
    )
    max_seconds_per_megapixel: float | None = Field(
        None, gt=0, description="time to enhance, on the machine that evaluates; none: off"
    )
    max_mib_per_megapixel: float | None = Field(
        None, gt=0, description="peak memory to enhance; none: off"
    )
    approval_within_s: int | None = Field(
        None,
        ge=1,
        description="time limit for manual approval after the gate has passed; none: no approval "
        "needed",
    )


class EnhanceParams(Taste):
    """How a batch of images is enhanced."""

    precision: Precision = Field("auto", description="arithmetic")
    max_pixels: int = Field(200_000_000, ge=1, description="larger images are quarantined")
    max_bad_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="maximum share of quarantined and failed images; above, the run fails",
    )
    bad_min_images: int = Field(
        3,
        ge=1,
        description="minimum number of images that max_bad_share is a share of: one bad image "
        "alone does not fail a run",
    )
    pass_luminance: float | None = Field(
        0.18,
        gt=0,
        le=1,
        description="mean luma of the darkest tenth of an image from which it is passed through "
        "unchanged; from two thirds of it on the output is mixed with the input; none: all are "
        "enhanced",
    )
    max_darkening: float | None = Field(
        0.0, le=1, description="share of its brightness that an image may lose; none: off"
    )
    max_dimmed_share: float | None = Field(
        0.05, ge=0, le=1, description="share of regions that may lose 0.1 of luma; none: off"
    )
    max_order_loss: float | None = Field(
        0.05, ge=0, le=1, description="luma by which brighter parts may come out darker; none: off"
    )
    max_tint: float | None = Field(
        0.1, ge=0, le=1, description="chroma that bright neutral parts may gain; none: off"
    )
    max_added_clipping: float | None = Field(
        0.2, ge=0, le=2, description="share of values that may be newly clipped; none: off"
    )
    max_added_noise: float | None = Field(
        0.01, ge=0, le=1, description="noise of luma beyond the gain in brightness; none: off"
    )
    max_harm_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of processed images that failed one of these limits, above which a run "
        "is reported as harmful",
    )
    harm_min_images: int = Field(10, ge=1, description="minimum number of images for that report")
    layout: Literal["stable", "versioned"] = Field(
        "stable", description="output keys: as those of the inputs, or below MODEL-VERSION/"
    )
    on_new_model: Literal["keep", "redo"] = Field(
        "keep", description="outputs of another model version: keep them, or redo them"
    )
    check_outputs: bool = Field(
        False,
        description="compare existing outputs with their rows, and do those again that were "
        "changed; else only deleted ones",
    )
    suffixes: tuple[str, ...] = Field(
        SUFFIXES,
        description="file name suffixes to take, case-insensitive; empty: all",
    )
    follow_links: bool = Field(
        False, description="follow links in a source folder; else they are skipped"
    )
    include: tuple[str, ...] = Field((), description="globs of keys to take; none: all")
    exclude: tuple[str, ...] = Field((), description="globs of keys to skip")
    min_age_s: float = Field(0.0, ge=0, description="skip younger objects until a later run")
    min_bytes: int = Field(0, ge=0, description="skip smaller objects")
    max_bytes: int = Field(
        1_000_000_000, ge=1, description="larger objects are quarantined without download"
    )
    kill_attempts: int = Field(
        2,
        ge=1,
        le=100,
        description="runs in which a process that worked on one image alone died, after which it "
        "is quarantined",
    )
    quarantine_prefix: str = Field(
        "_mirnet/quarantine",
        pattern=r"^_mirnet/quarantine[a-z0-9/_-]*$",
        description="prefix below the target, in its folder of records",
    )
    manifest_format: Literal["parquet", "jsonl"] = Field(
        "parquet", description="format of the run's manifest"
    )
    contact_images: int = Field(
        6, ge=0, le=100, description="random and darkest images on the contact sheet, each"
    )
    max_held_s: float = Field(
        72_000.0,
        gt=0,
        description="a run that finds another one at work for longer than this fails",
    )
    drift_distance: float = Field(
        0.3, ge=0, le=1, description="Jensen-Shannon distance from the model's reference profile"
    )
    drift_min_images: int = Field(50, ge=1, description="minimum number of images to judge drift")


def phase_loss(phase: Phase, loss: Mapping[str, float]) -> dict[str, float]:
    """The loss terms of a phase and their weights, given ``train.loss``."""
    return {name: weight for name, weight in {**loss, **phase.loss}.items() if weight}


class Params(Section):
    """All numbers of a run."""

    preset: str = Field("cpu", description="preset or file of these params")
    validation: ValidateParams = Field(default_factory=ValidateParams, alias="validate")
    model: ModelParams = Field(default_factory=ModelParams)
    train: TrainParams = Field(default_factory=TrainParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    promote: PromoteParams = Field(default_factory=PromoteParams)
    enhance: EnhanceParams = Field(default_factory=EnhanceParams)

    @model_validator(mode="before")
    @classmethod
    def _training_of_the_network(cls, values: Any) -> Any:
        train, model = ((values or {}).get(key) or {} for key in ("train", "model"))
        if not isinstance(train, dict) or {"loss", "phases"} <= train.keys():
            return values
        name = getattr(model, "name", ModelParams.model_fields["name"].default)
        if isinstance(model, dict):
            name = model.get("name", name)
        if not isinstance(name, str):
            return values  # refused by its own field
        entry = by_name(name)
        train = {"loss": dict(entry.objective)} | train
        # another objective may train everything from the start
        own = isinstance(train["loss"], dict) and entry.objective.keys() <= train["loss"].keys()
        if own and entry.phases:
            train = {"phases": entry.shares} | train
        return (values or {}) | {"train": train}

    @model_validator(mode="after")
    def _terms_fit(self) -> Params:
        architecture = self.model.config.architecture
        for name in self.train.loss:
            if objective_named(name).features and not self.train.perceptual_weights:
                raise UsageError(f"train.loss: {name} needs train.perceptual_weights=FILE of a VGG")
            if missing := objective_named(name).details - architecture.details:
                raise UsageError(
                    f"train.loss: {name} reads {', '.join(sorted(missing))}, which "
                    f"{architecture.title} does not give"
                )
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> Params:
        architecture = self.model.config.architecture
        for name in self.train.phases or ():
            if name not in architecture.phases:
                known = ", ".join(architecture.phases) or "none"
                raise UsageError(
                    f"train.phases: {architecture.title} has no phase {name!r}; it has {known}"
                )
            if not phase_loss(architecture.phases[name], self.train.loss):
                raise UsageError(
                    f"train.phases: train.loss has no term for the phase {name}; "
                    "train.phases=null trains in one"
                )
        return self

    @model_validator(mode="after")
    def _patches_fit(self) -> Params:
        multiple = self.model.config.architecture.size_multiple
        later = (stage.patch_size for stage in self.train.progressive)
        for size in (self.train.patch_size, *later):
            if size % multiple:
                near = " or ".join(map(str, patch_sizes_near(size, multiple)))
                raise UsageError(
                    f"train.patch_size: {self.model.name} takes multiples of {multiple}, "
                    f"such as {near} (got {size})"
                )
        return self

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, as logged to MLflow."""
        flat: dict[str, Any] = {"preset": self.preset}
        for section, values in self.model_dump(by_alias=True, mode="json").items():
            if isinstance(values, dict):
                flat |= {f"{section}.{key}": value for key, value in values.items()}
        return flat
