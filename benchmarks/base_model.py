"""Train the model in the package again and write its folder, card and digests: ``make base-model``.

python -m benchmarks.base_model [--real FOLDER] [--keep WORKSPACE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.base_model_card import Facts, Score, card
from mirnet import base_model
from mirnet.config import Settings
from mirnet.data.layout import find_pairs
from mirnet.data.samples import LICENSED, Photograph, make_sample_data, photograph_path
from mirnet.data.versioning import data_version
from mirnet.evaluation.baselines import Enhance, baseline
from mirnet.evaluation.scoring import score
from mirnet.images import read_rgb
from mirnet.inference import Enhancer
from mirnet.models import load_model, save_model
from mirnet.params import load_params
from mirnet.signing.files import digest_of, file_digests
from mirnet.stages.models import PROFILE
from mirnet.stages.training import write_profile
from mirnet.training import IN_PROCESS, Listener, TrainRequest, train_model

NUM_TRAIN, NUM_VAL, NUM_EVAL, SIDE = 80, 10, 24, 384
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Trained:
    data_digest: str
    core_minutes: float
    folder: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score, and replace the files in the package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base_model")
    parser.add_argument("--real", type=Path, help="pairs in the LoL layout to score as well")
    parser.add_argument("--keep", type=Path, help="workspace to keep; a second run resumes in it")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mirnet-base-model-") as scratch:
        place = options.keep or Path(scratch)
        data = place / "data"
        make_sample_data(
            data, num_train=NUM_TRAIN + NUM_VAL, num_eval=NUM_EVAL, size=SIDE, photographs=LICENSED
        )
        trained = train(data, place)
        write_model(trained)
        held_out = score_methods(data, "eval15")
        real = score_methods(options.real, "our485") if options.real else ()
    facts = Facts(
        sources=sources(),
        data_digest=trained.data_digest,
        num_pairs=(NUM_TRAIN, NUM_VAL, NUM_EVAL),
        core_minutes=trained.core_minutes,
        held_out=held_out,
        real=real,
    )
    base_model.CARD.write_text(card(facts), encoding="utf-8")
    write_digests(file_digests(base_model.FOLDER), trained.data_digest)
    print(base_model.CARD.read_text(encoding="utf-8"))


def train(data: Path, place: Path) -> Trained:
    """Train on the pairs of ``our485``; its last ones choose the epoch, ``eval15`` does not."""
    names = [f"{pair.split}/{pair.name}" for pair in find_pairs(data) if pair.split == "our485"]
    # of the same scenes: with five scenes, one that is kept apart would be missed
    chosen = np.random.default_rng(0).permutation(names)
    settings = Settings(workspace=place / "workspace", ray_address=IN_PROCESS)
    digest = data_version(data).digest
    params = load_params(base_model.RECIPE)
    request = TrainRequest(
        root=data,
        train_ids=tuple(sorted(chosen[NUM_VAL:])),
        val_ids=tuple(sorted(chosen[:NUM_VAL])),
        params=params,
        settings=settings,
        digest=digest,
        run_name="base",
        model_dir=place / "model",
    )
    total = params.train.num_epochs
    shown = Listener(on_progress=lambda epoch: print(epoch.describe(total), flush=True))
    result = train_model(request, shown)
    write_profile(data, tuple(request.train_ids), place / "model")
    minutes = sum(epoch.cpu_s for epoch in result.history) / 60
    return Trained(digest, minutes, place / "model")


def write_model(trained: Trained) -> None:
    """The trained model with weights in float16, in the package."""
    extra = {
        "name": base_model.NAME,
        "version": base_model.VERSION,
        "note": base_model.NOTE,
        "data_digest": trained.data_digest,
    }
    save_model(load_model(trained.folder).half(), base_model.FOLDER, extra=extra)
    (base_model.FOLDER / PROFILE).write_bytes((trained.folder / PROFILE).read_bytes())
    weights = base_model.FOLDER / "weights.safetensors"
    weights.chmod(0o644)  # safetensors writes for its owner only, and a wheel keeps modes
    size = weights.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"weights of {size:,} bytes: more than {MAX_BYTES:,}")


def score_methods(data: Path, split: str) -> tuple[Score, ...]:
    """Mean scores of the input, autocontrast and the model in the package, by scene and of all."""
    enhancer = Enhancer.load(base_model.FOLDER, precision="float32", compile=False)
    methods: Mapping[str, Enhance] = {
        "input": baseline("input"),
        "autocontrast": baseline("autocontrast"),
        base_model.NAME: enhancer,
    }
    rows = [
        {"scene": _scene(pair.name), "method": name, **_scores(enhance(low), high)}
        for pair in find_pairs(data)
        if pair.split == split and pair.low_path and pair.high_path
        for low, high in [(read_rgb(pair.low_path), read_rgb(pair.high_path))]
        for name, enhance in methods.items()
    ]
    table = pd.DataFrame(rows)
    parts = [("all", table)]
    if table["scene"].nunique() < len(table) // 3:
        parts += [(str(name), part) for name, part in table.groupby("scene")]
    return tuple(
        Score(scene, str(name), len(of), *of[["psnr", "ssim", "gt_mean_psnr"]].mean())
        for scene, part in parts
        for name, of in part.groupby("method", sort=False)
    )


def _scores(output: npt.NDArray[np.uint8], high: npt.NDArray[np.uint8]) -> dict[str, float]:
    found = score(output, high)
    return {"psnr": found.psnr, "ssim": found.ssim, "gt_mean_psnr": found.gt_mean_psnr}


def _scene(name: str) -> str:
    return Path(name).stem.rpartition("-")[0] or name


def sources() -> list[tuple[Photograph, str, str]]:
    """Each photograph with the version of its package and the digest of its file."""
    return [
        (photo, version(photo.distribution), digest_of(photograph_path(photo)))
        for photo in LICENSED
    ]


def write_digests(files: Mapping[str, str], data_digest: str) -> None:
    """Write version and digests as code."""
    released = Path(base_model.__file__).with_name("released.py")
    lines = [f'    "{name}": "{digest}",\n' for name, digest in files.items()]
    released.write_text(
        '"""Version and digests of the model in the package; written by ``make base-model``."""\n\n'
        f'VERSION = "{base_model.VERSION}"\n'
        f'DATA_DIGEST = "{data_digest}"\n'
        f"FILES = {{\n{''.join(lines)}}}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
