"""What the leaderboard keeps: one protocol for all rows, and one file for each row."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mirnet.atomic import write_atomically
from mirnet.errors import UsageError


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Protocol(Record):
    """What is equal for all rows of a folder.

    Attributes:
        roles: pair ids: ``train``, ``val`` (other scenes), ``eval`` (none without eval15).
        seen: of each pair of eval15 the most similar training pair of the same scene, if any.
    """

    digest: str
    core_minutes: float
    preset: str
    overrides: tuple[str, ...]
    roles: dict[str, tuple[str, ...]]
    seen: dict[str, str | None]
    processor: str

    @property
    def num_seen(self) -> int:
        return sum(pair is not None for pair in self.seen.values())

    def check(self, digest: str, core_minutes: float, preset: str, overrides: list[str]) -> None:
        """Refuse to mix rows: UsageError names what differs."""
        asked = {
            "data": (self.digest, digest),
            "--core-minutes": (self.core_minutes, core_minutes),
            "--preset": (self.preset, preset),
            "--set": (self.overrides, tuple(overrides)),
        }
        for name, (stored, given) in asked.items():
            if stored != given:
                raise UsageError(
                    f"{name}: the rows in the folder were made with {stored}, not {given}; "
                    "name another --into"
                )


class SplitScore(Record):
    """Means over the images of one split, with 95 % intervals; ``aligned`` after GT-mean."""

    num_images: int
    psnr: float
    psnr_interval: tuple[float, float]
    aligned_psnr: float
    aligned_interval: tuple[float, float]
    ssim: float
    ssim_interval: tuple[float, float]
    ciede2000: float
    niqe: float | None
    seconds_per_megapixel: float
    psnr_of: dict[str, float]


class Training(Record):
    """What the weights of a row took.

    Attributes:
        core_minutes: processor time of all threads in the steps that led to these weights, with
            their data loading and checkpoints and with the validation of one image at the end.
        minutes: wall clock of the same.
        step_core_s: processor time of one step, measured before; it gave the number of steps.
    """

    core_minutes: float
    minutes: float
    steps: int
    step_core_s: float


class Method(Record):
    """A network, or a baseline, which is not trained."""

    name: str
    title: str
    parameters: int = 0
    gmac: float = 0.0
    objective: dict[str, float] = {}
    training: Training | None = None
    mib_per_megapixel: float | None


class Row(Method):
    val: SplitScore
    eval15: SplitScore | None


ROW, FAILED, PROTOCOL = "row.json", "failed.txt", "protocol.json"


def save(record: Record, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record.model_dump_json(indent=2) + "\n")


def load_protocol(into: Path) -> Protocol:
    return Protocol.model_validate_json((into / PROTOCOL).read_text(encoding="utf-8"))


def load_rows(into: Path) -> list[Row]:
    """The finished rows, best validation PSNR first."""
    paths = sorted(into.glob(f"*/{ROW}"))
    rows = [Row.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(rows, key=lambda row: -row.val.psnr)


def load_failures(into: Path) -> dict[str, str]:
    """Networks without a row, and why."""
    paths = sorted(into.glob(f"*/{FAILED}"))
    return {path.parent.name: path.read_text(encoding="utf-8").strip() for path in paths}
