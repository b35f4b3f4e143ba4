"""Train the model in the package again and write its folder, card and digests: ``make base-model``.

python -m benchmarks.base_model PHOTOGRAPHS [--real FOLDER] [--night FOLDER] [--keep WORKSPACE]

PHOTOGRAPHS: the folder that ``python -m benchmarks.photographs`` assembles.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.base_model_card import Facts, Score, card
from benchmarks.photographs import read_table
from mirnet import base_model
from mirnet.config import Settings
from mirnet.data.degradation import WIDE
from mirnet.data.layout import EVAL_SPLIT, IMAGE_SUFFIXES, PAIRS_TABLE, TRAIN_SPLIT, find_pairs
from mirnet.data.samples import make_from_photographs
from mirnet.data.versioning import data_version
from mirnet.errors import DataError
from mirnet.evaluation.baselines import Enhance, baseline
from mirnet.evaluation.niqe import niqe
from mirnet.evaluation.scoring import score
from mirnet.images import read_rgb
from mirnet.inference import Enhancer
from mirnet.models import load_model, save_model
from mirnet.params import load_params
from mirnet.signing.files import digest_of, file_digests
from mirnet.stages.models import PROFILE
from mirnet.stages.training import write_profile
from mirnet.training import IN_PROCESS, Listener, TrainRequest, train_model

SEED, PER_PHOTO, SIDE, NUM_VAL = 1, 12, 384, 24
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Trained:
    num_pairs: int
    data_digest: str
    core_minutes: float
    folder: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score, and replace the files in the package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base_model")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--real", type=Path, help="pairs in the LoL layout to score as well")
    parser.add_argument("--night", type=Path, help="night photographs to measure as well")
    parser.add_argument("--keep", type=Path, help="workspace to keep; a second run resumes in it")
    options = parser.parse_args(arguments)
    check(options.photographs)
    with tempfile.TemporaryDirectory(prefix="mirnet-base-model-") as scratch:
        place = options.keep or Path(scratch)
        data = place / "data"
        if not data.is_dir():
            make_from_photographs(
                options.photographs,
                data,
                seed=SEED,
                per_photo=PER_PHOTO,
                size=SIDE,
                ranges=WIDE,
                num_processes=os.cpu_count() or 1,
            )
        trained = train(data, place)
        write_model(trained)
        held_out = score_methods(pairs_of(data, EVAL_SPLIT))
        photographs = sources(data)
    real = score_methods(pairs_of(options.real, TRAIN_SPLIT)) if options.real else ()
    facts = Facts(
        sources=photographs,
        data_digest=trained.data_digest,
        num_pairs=(trained.num_pairs, NUM_VAL, held_out[0].num_images),
        core_minutes=trained.core_minutes,
        held_out=held_out,
        real=real,
        well_lit=well_lit(pairs_of(options.real, TRAIN_SPLIT)) if options.real else None,
        night=naturalness(options.night) if options.night else {},
    )
    base_model.CARD.write_text(card(facts), encoding="utf-8")
    write_digests(file_digests(base_model.FOLDER), trained.data_digest)
    print(base_model.CARD.read_text(encoding="utf-8"))


def check(folder: Path) -> None:
    """Raise DataError unless the folder holds the photographs of the table and nothing else."""
    listed = {photo.name: photo.sha256 for photo in read_table()}
    for path in sorted(folder.iterdir()):
        if listed.get(path.name) != digest_of(path):
            raise DataError(f"{path}: not a photograph of the table")
    missing = sorted(set(listed) - {path.name for path in folder.iterdir()})
    if missing:
        raise DataError(f"{folder}: {len(missing)} photographs are missing, {missing[0]} first")


def train(data: Path, place: Path) -> Trained:
    """Train on the pairs of ``our485``; its last ones choose the epoch, ``eval15`` does not."""
    names = [f"{pair.split}/{pair.name}" for pair in find_pairs(data) if pair.split == TRAIN_SPLIT]
    # in the order of the photographs, so that those that choose are of other scenes
    settings = Settings(workspace=place / "workspace", ray_address=IN_PROCESS)
    digest = data_version(data).digest
    params = load_params(base_model.RECIPE)
    request = TrainRequest(
        root=data,
        train_ids=tuple(names[:-NUM_VAL]),
        val_ids=tuple(names[-NUM_VAL:]),
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
    return Trained(len(request.train_ids), digest, minutes, place / "model")


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


def methods() -> dict[str, Enhance]:
    """The model in the package as written, and what it is compared with."""
    enhancer = Enhancer.load(base_model.FOLDER, precision="float32", compile=False)
    found: Mapping[str, Enhance] = {
        "input": baseline("input"),
        "autocontrast": baseline("autocontrast"),
        base_model.NAME: enhancer,
    }
    return dict(found)


def pairs_of(data: Path, split: str) -> list[tuple[Path, Path]]:
    return [
        (pair.low_path, pair.high_path)
        for pair in find_pairs(data)
        if pair.split == split and pair.low_path and pair.high_path
    ]


def score_methods(pairs: Sequence[tuple[Path, Path]]) -> tuple[Score, ...]:
    """Mean scores of each method."""
    found = methods()
    rows = [
        {"method": name, **_scores(enhance(low), high)}
        for low_path, high_path in pairs
        for low, high in [(read_rgb(low_path), read_rgb(high_path))]
        for name, enhance in found.items()
    ]
    return tuple(
        Score(str(name), len(of), *of[["psnr", "ssim", "gt_mean_psnr"]].mean())
        for name, of in pd.DataFrame(rows).groupby("method", sort=False)
    )


def well_lit(pairs: Sequence[tuple[Path, Path]]) -> Score:
    """The references as inputs: what becomes of images that need nothing."""
    enhance = methods()[base_model.NAME]
    highs = [read_rgb(high_path) for _, high_path in pairs]
    table = pd.DataFrame([_scores(enhance(high), high) for high in highs])
    return Score(base_model.NAME, len(table), *table[["psnr", "ssim", "gt_mean_psnr"]].mean())


def naturalness(folder: Path) -> dict[str, float]:
    """Mean NIQE of each method over a folder of photographs; lower is better."""
    images = [read_rgb(p) for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
    return {
        name: float(np.mean([niqe(enhance(image)) for image in images]))
        for name, enhance in methods().items()
    }


def _scores(output: npt.NDArray[np.uint8], high: npt.NDArray[np.uint8]) -> dict[str, float]:
    found = score(output, high)
    return {"psnr": found.psnr, "ssim": found.ssim, "gt_mean_psnr": found.gt_mean_psnr}


def sources(data: Path) -> dict[str, str]:
    """What each photograph was used for, by name."""
    table = pd.read_csv(data / PAIRS_TABLE)
    judged = set(table["source"][table["pair"].str.startswith(f"{EVAL_SPLIT}/")])
    return {name: "scores" if name in judged else "training" for name in table["source"].unique()}


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
