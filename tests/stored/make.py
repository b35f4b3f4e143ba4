"""Writes ``site-0.1.tar.xz``: what the code of version 0.1 leaves in a working directory.

    git archive 6922db6 | tar -x -C /srv/mirnet-0.1/project
    cd /srv/mirnet-0.1/site && PYTHONPATH=/srv/mirnet-0.1/project python .../tests/stored/make.py

Runs in an empty directory with the code of then. Most weights are 0, 0.1 or -0.1, and the first
step reaches three of the layers only, so that the files compress to tens of kilobytes.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

STOPPED = "night-2"
PARAMS = {
    "preset": "stored",
    "validate": {"val_fraction": 0.25, "min_side": 16, "min_alignment": 0, "accept": []},
    "model": {"name": "mirnet-xs", "n_feat": 8},
    "train": {
        "num_epochs": 3,
        "steps_per_epoch": 1,
        "batch_size": 2,
        "patch_size": 32,
        "optimizer": "adam",
        "lr": 0.002,
        "schedule": "plateau",
        "plateau_patience": 0,
        "warmup_steps": 0,
        "ema_decay": 0.5,
        "precision": "float32",
        "compile": False,
        "init_from": "start",
        "num_samples": 1,
    },
    "promote": {
        "min_gain_db": -100,
        "max_loss_db": 100,
        "min_images": 2,
        "max_colour_cast": None,
        "min_luma_ratio": None,
        "min_well_lit_psnr_db": None,
        "max_harm_share": None,
        "max_added_clipping": None,
    },
}


def draw_pairs(root: Path) -> None:
    """Ten pairs of 48x40 pixels in the LoL layout: smooth colours, and a fifth of them."""
    rng = np.random.default_rng(0)
    for number in range(1, 11):
        split = "our485" if number <= 8 else "eval15"
        coarse = Image.fromarray(rng.integers(60, 230, (5, 6, 3), dtype=np.uint8))
        high = coarse.resize((48, 40), Image.Resampling.BICUBIC)
        low = Image.fromarray((np.asarray(high) // 5).astype(np.uint8))
        for side, image in (("low", low), ("high", high)):
            path = root / split / side / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def write_start(folder: Path) -> None:
    """A network that passes its input on, with weights that compress."""
    models = importlib.import_module("mirnet.models")  # those of then, which no checker knows
    params = importlib.import_module("mirnet.params")
    model = models.build(params.ModelParams(name="mirnet-xs", n_feat=8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            values = torch.randint(-9, 10, weight.shape, generator=generator)
            # the convolution behind the blocks starts at 0: no gradient reaches the blocks then
            weight.copy_(
                0.1 * values.sign() * (values.abs() > 7) * (name != "groups.0.conv.weight")
            )
    models.save_model(model, folder)


def mirnet(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mirnet.cli", *arguments], check=True)


def train_and_die(name: str) -> None:
    """Train, and be killed when the first epoch is on the store."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom mirnet import stages\n"
        "run = stages.open_run(None, None)\nversion = stages.check_version(Path('data'))\n"
        "def end(metrics):\n    if metrics.epoch == 0: os.kill(os.getpid(), 9)\n"
        "stages.train(Path('data'), run, version=version, model_dir=Path('model'),"
        " run_name=sys.argv[1], progress=end)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, name])
    assert done.returncode == -signal.SIGKILL, done.returncode


def make(site: Path) -> None:
    os.environ |= {"MIRNET_RAY_ADDRESS": "in-process", "OMP_NUM_THREADS": "1"}
    draw_pairs(site / "data")
    write_start(site / "start")
    (site / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    # elsewhere without a stop: what the stopped run has to end with
    whole = site.with_name("whole")
    shutil.copytree(site, whole)
    os.chdir(whole)
    mirnet("train", "--run-name", STOPPED)
    result = json.loads((whole / "reports" / "train.json").read_text())
    (site / "expected.json").write_text(json.dumps(result["history"], indent=1) + "\n")
    os.chdir(site)
    mirnet("train", "--run-name", "night-1", "--set", "train.num_epochs=1")
    mirnet("evaluate")
    mirnet("promote")
    train_and_die(STOPPED)


def pack(site: Path, target: Path) -> None:
    """Without what is large and not read again: pages, images, caches, MLflow's own examples."""
    artifacts = site / ".mirnet" / "mlartifacts"
    logged = [run for run in artifacts.glob("*/*") if run.name != "models"]
    for folder in [*logged, *site.rglob("cache"), site / "reports" / "validation"]:
        shutil.rmtree(folder, ignore_errors=True)
    for file in [*artifacts.rglob("*input_example.json"), *site.rglob("*.html")]:
        file.unlink()
    for database in site.rglob("*.db"):
        with sqlite3.connect(database) as connection:
            connection.execute("VACUUM")
    with tarfile.open(target, "w:xz", preset=9) as stored:
        stored.add(site, arcname=".")


if __name__ == "__main__":
    make(Path.cwd())
    pack(Path.cwd(), Path(__file__).with_name("site-0.1.tar.xz"))
