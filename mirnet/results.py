"""Results of the stages: small frozen models, written as JSON to the reports folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mirnet.atomic import write_atomically
from mirnet.errors import UsageError, problem_of


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The identity of a model: its name and version, and the run, data and code that made it.

    ``weights_digest``: SHA-256 of the weights. ``data_digest``: of DVC. ``note``: what a person has
    to know about its outputs.
    """

    name: str
    version: str | None = None
    run_id: str | None = None
    data_digest: str | None = None
    git_commit: str | None = None
    weights_digest: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """Short and fit for a key: ``mirnet-7``, of a folder ``model-9f86d081884c``."""
        weights = self.weights_digest and self.weights_digest[:12]
        version = self.version or weights or self.run_id or "unversioned"
        return f"{self.name}-{version}".replace("/", "-")

    def made(self, label: str, weights_digest: str | None) -> bool:
        """Whether what carries this label and digest is of this model.

        Two registries may both have a version 7, so the weights count too; outputs of the first
        versions of MIRNet have no digest.
        """
        comparable = weights_digest and self.weights_digest
        return label == self.label and (not comparable or weights_digest == self.weights_digest)


@dataclass(frozen=True)
class OpenedModel:
    """A model as a local folder, or a published checkpoint file.

    ``model_id``: of the logged model in MLflow, if there is one; ``files``: SHA-256 of every file
    of the folder, by its name in it, when it was verified; ``packaged``: it is the one in the
    installed package.
    """

    folder: Path
    ref: ModelRef
    model_id: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    packaged: bool = False


class Result(BaseModel):
    """Base of all results, each of a command. Frozen, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    command: ClassVar[str] = "mirnet"

    def save(self, path: Path) -> Path:
        """Write as JSON, whole or not at all."""
        return write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: the file is missing or is not this result; names the command to run.
        """
        if not path.is_file():
            raise UsageError(f"{path} is missing: run `{cls.command}` first")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            problem = f"is not a result of `{cls.command}`: {problem_of(error)}"
            raise UsageError(f"{path} {problem}") from error


class Cost(Result):
    """Core and GPU hours of a stage, their cost by the configured prices, and the energy."""

    cpu_hours: float
    gpu_hours: float
    price: float
    currency: str
    energy_kwh: float

    def metrics(self) -> dict[str, float]:
        """For an MLflow run; by their prefix its page has them beside the system metrics."""
        return {
            "system/cost/cpu_hours": self.cpu_hours,
            "system/cost/gpu_hours": self.gpu_hours,
            "system/cost/price": self.price,
            "system/cost/energy_kwh": self.energy_kwh,
        }


class DataVersion(Result):
    """The version of a data set by DVC's digest."""

    path: str
    digest: str = Field(description="DVC's md5 of the folder, with .dir: 36 characters")
    num_files: int
    size: int = Field(description="bytes")
    status: Literal["clean", "modified", "untracked"]
    changed: tuple[str, ...] = Field(
        default=(), description="files that differ from the pinned version"
    )
    git_commit: str | None = None


class Finding(Result):
    """One thing that validation found."""

    check: str
    severity: Literal["critical", "warning"]
    pair: str = Field(description="split/name, or the path of a file without a pair")
    other: str | None = Field(default=None, description="the pair that this one repeats")
    value: float | str | None = None
    message: str


class ValidationResult(Result):
    """Findings of `mirnet validate`."""

    command: ClassVar[str] = "mirnet validate"
    version: DataVersion
    num_pairs: dict[str, int] = Field(description="pairs by split folder")
    findings: tuple[Finding, ...] = ()
    passed: bool = Field(description="no critical finding")
    splits: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="pair ids (our485/1.png) by role: train, val, eval",
    )
    manifest_path: str | None = None
    docs_path: str | None = None
    seconds: float = 0.0


class EpochMetrics(Result):
    """Metrics of one epoch of training, reduced over all workers."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_psnr: float | None = Field(default=None, description="none: no output was computed")
    train_parts: dict[str, float] = Field(
        default={}, description="terms of the loss without their weights, if there are several"
    )
    val_loss: float | None = None
    val_psnr: float | None = None
    val_ssim: float | None = None
    grad_norm: float | None = None
    patches_per_s: float | None = None
    wait_share: float | None = Field(default=None, description="share of time waiting for data")
    seconds: float = 0.0
    cpu_s: float = Field(default=0.0, description="core seconds of the epoch, over all workers")
    gpu_s: float = Field(default=0.0, description="GPU seconds of the epoch, over all workers")

    def describe(self, num_epochs: int) -> str:
        """The epoch in one line, with the remaining time of the run."""
        psnr = self.val_psnr
        score = "not validated" if psnr is None else f"validation {psnr:.2f} dB"
        left = self.seconds * (num_epochs - self.epoch - 1)
        return (
            f"epoch {self.epoch + 1}/{num_epochs}: loss {self.train_loss:.4f}, {score}, "
            f"{self.patches_per_s or 0:.1f} patches/s, about {left:.0f} s left"
        )


class SampleImage(Result):
    """A validation pair and its output at some epoch."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    epoch: int
    pair: str
    jpeg: bytes = Field(description="low, enhanced and reference side by side")


class LogLine(Result):
    """A log line of a training worker."""

    level: int = Field(description="level of Python's logging")
    message: str


class NodeUsage(Result):
    """Usage of a node of a training run, at the end of an epoch."""

    epoch: int
    node: str = Field(description="address of the node")
    values: dict[str, float] = Field(description="by MLflow's system metric names")


class TrainResult(Result):
    """Result of `mirnet train`."""

    command: ClassVar[str] = "mirnet train"
    run_id: str | None = Field(default=None, description="MLflow run")
    model_dir: str = Field(description="best weights in the project's format")
    checkpoint_uri: str | None = None
    model_name: str
    num_parameters: int
    digest: str
    best_epoch: int
    best_val_psnr: float
    history: tuple[EpochMetrics, ...]
    num_workers: int
    seconds: float
    cost: Cost | None = None


class MethodScore(Result):
    """Means over the images of one split for one method, with 95 % bootstrap intervals."""

    method: str = Field(description="input, autocontrast, mirnet, ...")
    num_images: int
    psnr: float
    psnr_interval: tuple[float, float]
    ssim: float
    ssim_interval: tuple[float, float]
    extra: dict[str, float] = Field(default_factory=dict)
    gain: tuple[float, float, float] | None = Field(
        default=None,
        description="PSNR gain of the scored model in dB: paired mean and interval",
    )
    run_id: str | None = None


class EvaluationResult(Result):
    """Result of `mirnet evaluate`."""

    command: ClassVar[str] = "mirnet evaluate"
    run_id: str | None = None
    model: str
    digest: str
    split: str
    methods: dict[str, MethodScore]
    champion_version: str | None = Field(default=None, description="at that time, if any")
    scores_path: str = Field(description="Parquet, one row per image and method")
    report_path: str | None = None
    report_url: str | None = Field(default=None, description="in MLflow, if there is a server")
    seconds: float
    cost: Cost | None = None


class Approval(Result):
    """A person's decision on a model that passed the gate."""

    approved: bool
    who: str
    why: str = ""


class PromotionResult(Result):
    """The gate's decision and the resulting alias."""

    command: ClassVar[str] = "mirnet promote"
    promoted: bool
    reasons: tuple[str, ...]
    name: str
    version: str
    alias: str | None = Field(description="champion; challenger: waits for approval; none: refused")
    previous_version: str | None = None
    run_id: str | None = None


class ImageFate(Result):
    """One image to be looked at by a person."""

    input: str
    fate: str
    output: str | None = None
    reason: str | None = None
    luminance_before: float | None = None
    luminance_after: float | None = None


class EnhanceResult(Result):
    """Counts of a batch by result; planned = the sum of the others."""

    command: ClassVar[str] = "mirnet enhance"
    run_id: str
    source: str
    target: str
    model: str
    model_version: str | None = None
    model_note: str | None = Field(
        default=None, description="what a person has to know about outputs of the model"
    )
    weights_digest: str | None = None
    planned: int
    enhanced: int
    passed_through: int = 0
    skipped: int = 0
    kept: int = Field(
        default=0,
        description="of the skipped: processed by another model, enhance.on_new_model=keep",
    )
    quarantined: int = 0
    failed: int = 0
    outputs_deleted: int = Field(
        default=0, description="outputs of done images that were deleted since; done again"
    )
    outputs_changed: int = Field(
        default=0,
        description="outputs of done images that were changed since, enhance.check_outputs=true",
    )
    known_bad: int = Field(
        default=0,
        description="of the quarantined, failed and skipped: bad in an earlier run already, in the "
        "same version",
    )
    passed_over: dict[str, int] = Field(
        default_factory=dict, description="files that were passed over, by reason; not planned"
    )
    manifest_uri: str | None = Field(default=None, description="a file, or a folder of shards")
    summary_uri: str | None = None
    contact_uri: str | None = Field(default=None, description="HTML page of before and after")
    drift: dict[str, float] = Field(
        default_factory=dict, description="Jensen-Shannon distance to the reference, by column"
    )
    drifted: tuple[str, ...] = Field(default=(), description="columns beyond the threshold")
    drift_reasons: dict[str, str] = Field(default_factory=dict, description="verdict by column")
    reasons: dict[str, int] = Field(
        default_factory=dict,
        description="of those passed through, quarantined or failed, by reason",
    )
    harm: dict[str, int] = Field(
        default_factory=dict,
        description="of those passed through: failed safety checks, by kind of harm",
    )
    harmful: bool = Field(default=False, description="too many outputs failed the safety checks")
    worst: tuple[ImageFate, ...] = Field(
        default=(),
        description="a few images: not enhanced or rejected by a safety check, then the darkest",
    )
    picture: ImageFate | None = Field(
        default=None, description="the single image that was named, if any"
    )
    problem: str | None = Field(default=None, description="why the run counts as failed")
    held_by: str | None = Field(
        default=None, description="the other job that holds the target; this one did nothing"
    )
    seconds: float
    cost: Cost | None = None


class OutputProblem(Result):
    """An output that is not what was written."""

    output: str = Field(description="key below the target")
    input: str = Field(description="key below the source")
    problem: Literal["deleted", "truncated", "replaced", "unreadable"]
    detail: str | None = None


class VerifyResult(Result):
    """Result of `mirnet verify`; outputs = intact + not_checkable + the problems."""

    target: str
    outputs: int = Field(description="outputs that the manifests record")
    intact: int
    not_checkable: int = Field(description="recorded with neither version nor digest")
    deleted: int = 0
    truncated: int = Field(default=0, description="fewer bytes than were written")
    replaced: int = Field(default=0, description="other bytes than were written")
    unreadable: int = 0
    quick: bool = Field(default=False, description="versions and sizes only, nothing was read")
    problems: tuple[OutputProblem, ...] = Field(default=(), description="the first 1000")
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def num_problems(self) -> int:
        """Outputs that are not what was written."""
        return self.deleted + self.truncated + self.replaced + self.unreadable


class RetrainResult(Result):
    """Results of one retrain flow."""

    validation: ValidationResult
    train: TrainResult
    evaluation: EvaluationResult
    promotion: PromotionResult
