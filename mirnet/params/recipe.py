"""The recipe of training: bounds and a description on every field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mirnet.objectives.registry import by_name as objective_named

Precision = Literal["auto", "float32", "bf16"]
TrainPrecision = Literal["auto", "float32", "bf16", "fp16"]


class Section(BaseModel):
    """Base of all params sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


_PATCH_LIMITS = 16, 1024


def patch_sizes_near(size: int, multiple: int) -> list[int]:
    """The allowed patch sizes next to ``size`` that are multiples, the nearest first."""
    below = size // multiple * multiple
    least, most = _PATCH_LIMITS
    found = [near for near in (below, below + multiple) if least <= near <= most]
    return sorted(found, key=lambda near: abs(near - size))


class PatchStage(Section):
    """Patch and batch of a part of a run: progressive learning (MIRNet-v2, section 4.2)."""

    start: float = Field(ge=0, lt=1, description="share of the run at which the stage begins")
    patch_size: int = Field(
        ge=_PATCH_LIMITS[0], le=_PATCH_LIMITS[1], description="pixels, square crops"
    )
    batch_size: int = Field(ge=1, le=4096, description="global batch")


class Relight(Section):
    """Samples whose dark image is the reference at another exposure.

    They teach the network what a pair does not show: brighter and darker light than that of the
    data, and that an image which needs nothing stays as it is.
    """

    share: float = Field(gt=0, le=1, description="share of the samples")
    darkest: float = Field(
        1 / 32, gt=0, le=1, description="least exposure, a factor on linear light; log-uniform to 1"
    )
    well_lit: float = Field(
        0.3, ge=0, le=1, description="share of these that are the reference itself"
    )


class Replay(Section):
    """Pairs of an earlier data set among those of a new one, such as those of another camera.

    Training on the new ones alone forgets what the initial weights had learned.
    """

    data: str = Field(min_length=1, description="folder in the LoL layout; its training pairs")
    share: float = Field(0.5, gt=0, lt=1, description="share of the samples")


class TrainParams(Section):
    """The recipe. Batch size is global: the number of workers never changes the recipe."""

    seed: int = Field(0, ge=0, description="seed of weights, crops and flips")
    num_epochs: int = Field(40, ge=1, le=10_000, description="epochs")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="optimiser steps per epoch; none: one pass over the training pairs"
    )
    batch_size: int = Field(8, ge=1, le=4096, description="global batch, over all workers")
    patch_size: int = Field(
        128, ge=_PATCH_LIMITS[0], le=_PATCH_LIMITS[1], description="pixels, square crops"
    )
    progressive: tuple[PatchStage, ...] = Field(
        (), description="later stages with other patch and batch sizes, in order of their start"
    )
    symmetries: bool = Field(True, description="random flips and rotations of the patches")
    mixup_alpha: float | None = Field(
        None, gt=0, description="MixUp of patches with weights from Beta(alpha, alpha)"
    )
    mixup_start: float = Field(0.0, ge=0, lt=1, description="share of the run before MixUp")
    relight: Relight | None = Field(
        None, description="samples made from the reference at other exposures; none: none"
    )
    replay: Replay | None = Field(
        None, description="pairs of an earlier data set among the samples; none: none"
    )
    accumulate: int = Field(1, ge=1, le=256, description="parts of a batch (gradient accumulation)")
    optimizer: Literal["adam", "adamw"] = Field("adam", description="optimiser")
    lr: float = Field(2e-4, gt=0, le=1, description="initial learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="weight decay")
    schedule: Literal["plateau", "cosine", "two-cycle", "constant"] = Field(
        "plateau",
        description="ReduceLROnPlateau on validation PSNR; cosine; constant for 92 of 300 parts, "
        "then cosine, as MIRNet-v2; constant",
    )
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="ReduceLROnPlateau: factor")
    plateau_patience: int = Field(5, ge=0, description="ReduceLROnPlateau: epochs")
    min_lr: float = Field(1e-6, ge=0, description="minimum learning rate of the schedule")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    loss: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {"charbonnier": 1.0},
        min_length=1,
        description="loss terms and their weights; not given: those of the network",
    )
    phases: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="phases of the network's training and their shares of the run; not given: "
        "those of the network, where `loss` has its objective; none: one with all of `loss`",
    )
    perceptual_weights: str | None = Field(
        None,
        min_length=1,
        description="a file of VGG weights, which you bring: the perceptual term",
    )
    charbonnier_eps: float = Field(1e-3, gt=0, description="epsilon of the Charbonnier loss")
    init_from: str | None = Field(
        None,
        min_length=1,
        description="initial weights, of the same architecture: a model folder, a published "
        "checkpoint, models:/NAME@ALIAS, or base, the model in the package",
    )
    distill_from: str | None = Field(
        None,
        min_length=1,
        description="teacher model for distillation, usually larger; same forms as init_from",
    )
    distill_weight: float = Field(
        1.0, gt=0, description="weight of the distillation loss, with a teacher"
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of the exponential moving average of the weights, scored and exported",
    )
    grad_clip: float | None = Field(None, gt=0, description="clip the gradient norm at this value")
    precision: TrainPrecision = Field(
        "float32",
        description="autocast; fp16 with a loss scaler; auto: bf16 where the hardware has it",
    )
    compile: bool = Field(False, description="torch.compile for the repeated blocks")
    validate_every: int = Field(1, ge=1, description="epochs; the last is always validated")
    samples_every: int | None = Field(
        2,
        ge=1,
        description="validations between sample images in MLflow, and at the end; none: no images",
    )
    num_samples: int = Field(3, ge=1, le=32, description="validation pairs shown as sample images")
    early_stop: int | None = Field(
        None, ge=1, description="early stopping: validations without a new best"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between checkpoints; none: one epoch; another one at the end"
    )
    on_nonfinite: Literal["stop", "rollback"] = Field(
        "stop",
        description="after a non-finite loss: end the run, or restart from the last "
        "checkpoint with half the learning rate",
    )

    @field_validator("loss")
    @classmethod
    def _known_terms(cls, loss: dict[str, float]) -> dict[str, float]:
        for name in loss:
            objective_named(name)  # raises for what is not known
        return loss

    @model_validator(mode="after")
    def _stages_in_order(self) -> TrainParams:
        starts = [stage.start for stage in self.progressive]
        if starts != sorted(set(starts)):
            raise ValueError("progressive: each stage must start later than the one before")
        return self
