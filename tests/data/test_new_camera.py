"""The pure parts of the benchmark of a new camera, and its pairs from small photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import new_camera
from benchmarks.leaderboard_rows import save
from benchmarks.new_camera import (
    CAMERA,
    NUM_CHOOSING,
    check_same,
    main,
    make_pairs,
    measure,
    old_pairs,
    overrides_of,
    roles_of,
    shots_of,
)
from benchmarks.new_camera_results import RUN, Run, Scores, change, draw, finished, table
from mirnet.data.degradation import WIDE
from mirnet.data.samples import PHOTOGRAPHS, make_from_photographs, photograph_path
from mirnet.errors import DataError, UsageError
from mirnet.images import read_rgb
from mirnet.models import build, save_model
from mirnet.params import load_params


def write_old(folder: Path, num_train: int, num_eval: int) -> Path:
    """Data of an old camera: two pairs of each photograph, and one split per photograph."""
    rows = ["pair,source"]
    for split, count in (("our485", num_train), ("eval15", num_eval)):
        for side in ("low", "high"):
            (folder / split / side).mkdir(parents=True)
        for name in (f"{split}-{i:02d}-{turn}.png" for i in range(count) for turn in (1, 2)):
            rows.append(f"{split}/{name},{name[:-6]}.png")
            for side in ("low", "high"):
                (folder / split / side / name).write_bytes(b"")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_tested_photographs_are_those_that_the_start_never_saw(tmp_path: Path) -> None:
    old = write_old(tmp_path, NUM_CHOOSING + 5, 3)
    roles = roles_of(old, 4)
    assert roles.test == tuple(f"eval15-{i:02d}.png" for i in range(3))
    assert len(set(roles.adapt)) == 4
    assert len(set(roles.choose)) == NUM_CHOOSING
    assert not {*roles.adapt} & {*roles.choose}
    assert all(name.startswith("our485-") for name in (*roles.adapt, *roles.choose))


def test_data_that_name_no_photographs_or_too_few_are_refused(tmp_path: Path) -> None:
    old = write_old(tmp_path, NUM_CHOOSING + 3, 1)
    with pytest.raises(
        DataError, match=rf"{NUM_CHOOSING + 3} others; 1 and {NUM_CHOOSING + 4} are"
    ):
        roles_of(old, 4)
    (old / "pairs.csv").unlink()
    with pytest.raises(DataError, match=r"no pairs\.csv"):
        roles_of(old, 3)


def test_old_pairs_for_choosing_are_not_those_of_the_test(tmp_path: Path) -> None:
    old = write_old(tmp_path, new_camera.NUM_OLD, 2)
    tested = old_pairs(old, choose=False)
    assert len(set(tested)) == 4
    assert all(name.startswith("eval15/") for name in tested)
    chosen = old_pairs(old, choose=True)
    assert len(set(chosen)) == new_camera.NUM_OLD
    assert {name[-5] for name in chosen} == {"1", "2"}
    assert all(name.startswith("our485/") for name in chosen)


def test_the_camera_is_outside_of_what_the_start_was_trained_on() -> None:
    for name in ("red_gain", "blue_gain", "mired_shift", "tone"):
        low, high = getattr(CAMERA, name)
        least, most = getattr(WIDE, name)
        assert low == high, name
        assert not least <= low <= most, name


def test_fewer_pairs_are_the_first_of_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_camera, "SIDE", 32)
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / name)
    two, four = (
        make_pairs(shots_of(tmp_path, names[:count], "our485"), tmp_path / f"camera-{count}")
        for count in (2, 4)
    )
    for side in ("low", "high"):
        files = sorted((two / "our485" / side).iterdir())
        assert [file.name for file in files] == ["0.png-1.png", "1.png-1.png"]
        for file in files:
            same = read_rgb(four / "our485" / side / file.name)
            assert np.array_equal(read_rgb(file), same)


def test_the_recipe_is_params_that_are_valid(tmp_path: Path) -> None:
    old = tmp_path / "old, data"
    params = load_params("cpu", overrides=overrides_of("base", old, 0.3, ["train.seed=4"])).train
    assert params.replay is not None
    assert (params.replay.data, params.replay.share) == (str(old), 0.3)
    assert (params.init_from, params.seed) == ("base", 4)
    assert load_params("cpu", overrides=overrides_of("base", old, None, [])).train.replay is None


def run(pairs: int, replay: float | None, camera: float, old: float) -> Run:
    """All pairs are better by the same dB than those of the start."""
    scores = {
        name: Scores(psnr=(15.0 + gain, 17.0 + gain), aligned=(20.0 + gain,) * 2, ssim=(0.5, 0.7))
        for name, gain in (("camera", camera), ("old", old))
    }
    return Run(
        pairs=pairs,
        replay=replay,
        start="a digest",
        overrides=(f"train.lr={pairs}",),
        steps=100,
        minutes=2.25,
        core_minutes=4.0,
        scores=scores,
    )


def test_table_and_curve_show_changes_against_the_start(tmp_path: Path) -> None:
    made = {
        "3-replay": run(3, 0.5, 1.5, -0.125),
        "3-alone": run(3, None, 2.0, -3.0),
        "10-alone": run(10, None, 4.0, -2.0),
        "0": run(0, None, 0.0, 0.0),
    }
    for name, one in made.items():
        save(one, tmp_path / name / "eval15.json")
    save(run(10, 0.5, 3.0, -0.25), tmp_path / "10-replay" / RUN)
    runs = finished(tmp_path, "eval15.json")
    assert runs == [made["0"], made["3-alone"], made["3-replay"], made["10-alone"]]
    lines = table(runs).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == ("| 0 |  |  |  |  | 16.00 |  | 20.00 | 0.6000 | 16.00 |  | 20.00 | 0.6000 |")
    assert lines[4] == (
        "| 3 | 0.5 | 100 | 2.2 | 4.0 | 17.50 | +1.50 (+1.50 to +1.50) | 21.50 | 0.6000 "
        "| 15.88 | -0.12 (-0.12 to -0.12) | 19.88 | 0.6000 |"
    )
    draw(runs, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size == (800, 340)


def test_other_pairs_or_another_recipe_are_not_compared() -> None:
    start, adapted = run(0, None, 0.0, 0.0), run(3, None, 1.0, 0.0)
    one = Scores(psnr=(15.0,), aligned=(20.0,), ssim=(0.5,))
    fewer = adapted.model_copy(update={"scores": {"camera": one, "old": one}})
    with pytest.raises(DataError, match="2 pairs of the start, 1 of the run"):
        change(fewer, start, "camera")


def test_a_folder_holds_one_recipe_and_one_start(tmp_path: Path) -> None:
    stored = run(3, None, 1.0, 0.0)
    save(stored, tmp_path / RUN)
    assert measure(tmp_path, stored.model_copy(update={"scores": {}}), tmp_path) == stored
    check_same(stored, stored)
    for other in ({"overrides": ("train.lr=4",)}, {"start": "another digest"}):
        with pytest.raises(UsageError, match="another recipe or start"):
            measure(tmp_path, stored.model_copy(update=other), tmp_path)


@pytest.mark.slow
def test_the_whole_benchmark_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_camera, "SIDE", 160)
    monkeypatch.setattr(new_camera, "NUM_CHOOSING", 1)
    (tmp_path / "photos").mkdir()
    for photo in PHOTOGRAPHS[:5]:
        picture = Image.open(photograph_path(photo)).convert("RGB").resize((192, 176))
        picture.save(tmp_path / "photos" / f"{photo.name}.png")
    make_from_photographs(tmp_path / "photos", tmp_path / "old", size=128)
    save_model(build("resunet-s").eval(), tmp_path / "start")
    words = [str(tmp_path / "photos"), "--start", str(tmp_path / "start")]
    words += ["--old", str(tmp_path / "old"), "--into", str(tmp_path / "into"), "--pairs", "3"]
    words += ["--set", "train.num_epochs=1", "train.steps_per_epoch=2", "train.batch_size=2"]
    main([*words, "train.patch_size=64"])
    runs = finished(tmp_path / "into", "eval15.json")
    assert [(run.pairs, run.replay, run.steps) for run in runs] == [
        (0, None, 0),
        (3, None, 2),
        (3, new_camera.SHARE, 2),
    ]
    assert all(len(run.scores["camera"].psnr) == new_camera.PER_JUDGED for run in runs)
    assert len({run.scores["old"].psnr for run in runs}) == 3
    assert (tmp_path / "into/table.md").read_text().count("\n") == 5
    assert (tmp_path / "into/curve.png").stat().st_size > 10_000
