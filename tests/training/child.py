"""Trains in its own process, to be killed: ``python -m tests.training.child ARGUMENTS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mirnet.config import Settings
from mirnet.params import load_params
from mirnet.training import TrainRequest, train_model

if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(Path(sys.argv[1]).read_text())
    request = TrainRequest(
        root=Path(given["root"]),
        train_ids=given["train_ids"],
        val_ids=given["val_ids"],
        params=load_params("cpu-mirnet", overrides=tuple(given["overrides"])),
        settings=Settings.model_validate(given["settings"]),
        digest="d1",
        run_name=given["run_name"],
        model_dir=Path(given["model_dir"]),
    )
    train_model(request)
