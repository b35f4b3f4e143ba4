"""Results of the demo as a table, as JSON and as a page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field
from rich.table import Table

from flows.demo_folder import DemoFolder
from mirnet.cli.terminal import console
from mirnet.results import EnhanceResult, Result, RetrainResult

CONTACT = "contact.html"
METHODS = ("input", "autocontrast", "mirnet")


class DemoOutcome(Result):
    command: ClassVar[str] = "mirnet demo"
    psnr: dict[str, float] = Field(description="dB by method")
    ssim: dict[str, float]
    enhance: dict[str, int] = Field(description="images of the bucket by result")
    data: dict[str, str] = Field(description="the version: digest")
    num_images: int = Field(description="put into the bucket")
    model: dict[str, str | None] = Field(description="as registered: name, version, alias")
    seconds: dict[str, float] = Field(description="by step")

    @classmethod
    def of(
        cls,
        trained: RetrainResult,
        batch: EnhanceResult,
        seconds: dict[str, float],
        *,
        num_images: int,
    ) -> Self:
        """Collect the figures of both flows."""
        methods = trained.evaluation.methods
        return cls(
            psnr={name: round(methods[name].psnr, 3) for name in METHODS},
            ssim={name: round(methods[name].ssim, 4) for name in METHODS},
            enhance=batch.model_dump(include={"planned", "enhanced", "quarantined", "failed"}),
            num_images=num_images,
            data={"digest": trained.evaluation.digest},
            model=trained.promotion.model_dump(include={"name", "version", "alias"}),
            seconds={name: round(value, 1) for name, value in seconds.items()},
        )

    def write(self, folder: DemoFolder, *, report: Path, contact: str | None) -> None:
        """Pages, then the figures: a demo with figures is complete."""
        folder.results.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report, folder.report)
        if contact is not None:
            (folder.results / CONTACT).write_text(contact, encoding="utf-8")
        self.save(folder.figures)

    def show(self, folder: DemoFolder) -> None:
        """Tables, and where the files are."""
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
        places = {
            "figures": folder.figures,
            "report": folder.report,
            "contact sheet": folder.results / CONTACT,
            "images": f"{folder.results / 'dark'} and {folder.results / 'bright'}",
            "buckets": folder.buckets,
            "registry": f"{folder.home / 'workspace'}; its pages: mirnet ui {folder.home}",
        }
        for name, place in places.items():
            console.print(f"{name + ':':<15}{place}", soft_wrap=True)

    def verdict(self, *, min_gain_db: float) -> int:
        """Exit code: 0 only if the model is clearly better and no image is unaccounted for."""
        gain = self.psnr["mirnet"] - self.psnr["autocontrast"]
        counts = self.enhance
        problems = []
        if gain < min_gain_db:
            problems.append(
                f"MIRNet is {gain:+.2f} dB over autocontrast; {min_gain_db} is required"
            )
        num_images = self.num_images
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
