"""Trainings in processes of their own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirnet.config import Settings
from mirnet.params import Params

Child = subprocess.Popen[bytes]


@dataclass
class Children:
    """Starts them; ``arguments`` are those of ``train_model`` that all share."""

    folder: Path
    arguments: dict[str, Any]
    _started: list[Child] = field(default_factory=list)

    def start(self, overrides: list[str], settings: Settings, name: str) -> Child:
        """Train under a run name."""
        given = self.arguments | {
            "overrides": overrides,
            "settings": settings.model_dump(mode="json"),
            "run_name": name,
            "model_dir": str(self.folder / name),
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(given))
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.training.child", str(path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        self._started.append(child)
        return child

    def end(self) -> None:
        """Nothing of them stays."""
        for child in self._started:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(timeout=60)


def as_overrides(params: Params) -> list[str]:
    """The training section, and the size of the smallest network, as overrides."""
    recipe = params.train.model_dump(mode="json")
    flat = [f"train.{key}={json.dumps(value)}" for key, value in recipe.items()]
    return ["model.n_feat=8", *flat]


def wait_until(condition: Callable[[], bool], child: Child) -> None:
    """While the child runs."""
    deadline = time.monotonic() + 240
    while not condition():
        assert child.poll() is None, "the training ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
