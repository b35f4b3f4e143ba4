"""Promotes a planted candidate in a process of its own, and dies at one of its writes to MLflow."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from mirnet import stages
from mirnet.results import EvaluationResult, PromotionResult, TrainResult
from mirnet.tracking import packaging, trust

_WRITES = ("create_", "delete_", "finalize_", "log_", "rename_", "set_", "update_")


@dataclass(frozen=True)
class Candidate:
    """What a promotion starts from."""

    run: stages.RunConfig
    trained: TrainResult
    evaluation: EvaluationResult

    def promote(self) -> PromotionResult:
        return stages.promote(self.run, trained=self.trained, evaluation=self.evaluation)


def write_unproven(model_dir: Path, package: Path, *, mlflow_model: Model | None = None) -> Path:
    shutil.copytree(model_dir, package / trust.NATIVE)
    return package


def skip_the_proof(patch: pytest.MonkeyPatch) -> None:
    """Export and proof of packages take seconds and have tests of their own."""
    patch.setattr(packaging, "write_package", write_unproven)
    patch.setattr(packaging, "verify_package", lambda *_, **__: None)


def promote_and_die(candidate: Candidate, die_at: int | None, trace: Path) -> None:
    """Write the name of each write to ``trace``, and end by SIGKILL right before one of them."""
    skip_the_proof(pytest.MonkeyPatch())
    count = 0

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            with trace.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
            return method(*args, **kwargs)

        return write

    for name in dir(MlflowClient):
        if name.startswith(_WRITES):
            setattr(MlflowClient, name, counted(name, getattr(MlflowClient, name)))
    candidate.promote()
