"""Results of the demo as a table, as JSON and as a page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

from pydantic import Field
from rich.table import Table

from mirnet.cli.terminal import console
from mirnet.config import load_settings
from mirnet.results import EnhanceResult, Result, RetrainResult

METHODS = ("input", "autocontrast", "mirnet")


class DemoOutcome(Result):
    psnr: dict[str, float] = Field(description="dB by method")
    ssim: dict[str, float]
    enhance: dict[str, int] = Field(description="images of the bucket by result")
    data: dict[str, str] = Field(description="the version: digest")
    model: dict[str, str | None] = Field(description="as registered: name, version, alias")
    seconds: dict[str, float] = Field(description="by step")

    @classmethod
    def of(cls, trained: RetrainResult, batch: EnhanceResult, seconds: dict[str, float]) -> Self:
        """Collect the figures of both flows."""
        methods = trained.evaluation.methods
        return cls(
            psnr={name: round(methods[name].psnr, 3) for name in METHODS},
            ssim={name: round(methods[name].ssim, 4) for name in METHODS},
            enhance=batch.model_dump(include={"planned", "enhanced", "quarantined", "failed"}),
            data={"digest": trained.evaluation.digest},
            model=trained.promotion.model_dump(include={"name", "version", "alias"}),
            seconds={name: round(value, 1) for name, value in seconds.items()},
        )

    def write(self, reports: Path, *, page: Path) -> None:
        self.save(reports / "demo.json")
        (reports / "demo").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, reports / "demo" / "index.html")

    def show(self, reports: Path) -> None:
        scores = Table("method", "PSNR dB", "SSIM", title="evaluation pairs")
        for name in METHODS:
            scores.add_row(name, f"{self.psnr[name]:.2f}", f"{self.ssim[name]:.3f}")
        console.print(scores)
        counts = Table("images", "", title="bucket")
        for name, count in self.enhance.items():
            counts.add_row(name, str(count))
        console.print(counts)
        times = Table("step", "seconds")
        for name, value in self.seconds.items():
            times.add_row(name, f"{value:.1f}")
        console.print(times)
        uri = load_settings().mlflow_uri
        console.print(f"figures:  {reports / 'demo.json'}")
        console.print(f"images:   {reports / 'demo' / 'index.html'}")
        console.print("MLflow:   ", end="")
        console.print(
            f".venv/bin/mlflow server --backend-store-uri {uri} --port 5000", soft_wrap=True
        )

    def verdict(self, *, num_images: int, min_gain_db: float) -> int:
        """Exit code: 0 only if the model is clearly better and no image is unaccounted for."""
        gain = self.psnr["mirnet"] - self.psnr["autocontrast"]
        counts = self.enhance
        problems = []
        if gain < min_gain_db:
            problems.append(
                f"MIRNet is {gain:+.2f} dB over autocontrast; {min_gain_db} is required"
            )
        expected = {"enhanced": num_images - 1, "quarantined": 1, "failed": 0}
        if counts["planned"] != num_images:
            problems.append(f"{num_images} images in the bucket, {counts['planned']} planned")
        if any(counts[name] != number for name, number in expected.items()):
            problems.append("expected all images enhanced but the truncated one, quarantined")
        for problem in problems:
            print(f"demo: {problem}")
        print(
            f"demo: MIRNet is {gain:+.2f} dB over autocontrast" if not problems else "demo: failed"
        )
        return 1 if problems else 0
