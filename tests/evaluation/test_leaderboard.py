"""The leaderboard: rows of equal processor time, which an interruption does not lose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import leaderboard
from benchmarks.leaderboard_method import EPOCHS, measure, params_of
from benchmarks.leaderboard_page import write_leaderboard
from benchmarks.leaderboard_rows import Protocol, load_failures, load_rows
from mirnet.data.samples import make_sample_data
from mirnet.errors import UsageError
from mirnet.evaluation import baselines
from mirnet.models import registry
from mirnet.training import Listener

CORE_MINUTES = 0.01
RECIPE = ("train.patch_size=32", "train.batch_size=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard") / "data"
    make_sample_data(folder, num_train=6, num_eval=2, size=192)
    return folder


@pytest.fixture(scope="module")
def into(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


def _prepare(data: Path, into: Path, *, core_minutes: float = CORE_MINUTES) -> Protocol:
    return leaderboard.prepare(
        data, into, core_minutes=core_minutes, preset="cpu-mirnet", overrides=RECIPE
    )


class _Interrupt(Exception):
    pass


def test_a_row_goes_on_after_an_interruption_and_all_are_on_the_page(
    data: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = _prepare(data, into)

    def interrupt(metrics) -> None:
        if metrics.epoch == 3:
            raise _Interrupt

    with pytest.raises(_Interrupt):
        measure("sci", data, into, protocol, listener=Listener(on_progress=interrupt))
    assert not load_rows(into)
    plan = (into / "sci" / "plan.json").read_text()
    epochs: list[int] = []
    listener = Listener(on_progress=lambda metrics: epochs.append(metrics.epoch))
    row = measure("sci", data, into, protocol, listener=listener)

    assert epochs == list(range(4, EPOCHS))
    assert (into / "sci" / "plan.json").read_text() == plan
    assert row.training is not None
    wanted = CORE_MINUTES * 60 / row.training.step_core_s
    assert row.training.steps == pytest.approx(wanted, abs=EPOCHS)
    # of all epochs, also of those before the interruption
    assert row.training.core_minutes > 0
    assert row.eval15 is not None and row.eval15.num_images == 2
    assert len(row.val.psnr_of) == len(protocol.roles["val"])

    for name in ("zerodcepp-s", "autocontrast"):
        measure(name, data, into, protocol)
    page = write_leaderboard(into, data).read_text()
    assert all(f"<td>{name}</td>" in page for name in ("sci", "zerodcepp-s", "autocontrast"))
    assert page.count("data:image/webp") == (2 + 3) * min(3, len(protocol.roles["val"]))
    assert "<script src" not in page and "://" not in page
    kept = json.loads((into / "leaderboard.json").read_text())
    assert [each["name"] for each in kept["rows"]] == [each.name for each in load_rows(into)]
    table = (into / "table.md").read_text().splitlines()
    columns = {line.count("|") for line in table if line.startswith("|")}
    assert len(columns) == 1 and len(load_rows(into)) == 3

    called: list[str] = []
    monkeypatch.setattr(leaderboard, "run_child", lambda name, _: called.append(name))
    arguments = ["--networks", "sci", "iat", "--no-mlflow", "--into", str(into)]
    arguments += ["--core-minutes", str(CORE_MINUTES), "--set", *RECIPE]
    leaderboard.main([str(data), *arguments])
    assert "iat" in called and not {"sci", "autocontrast"} & set(called)


def test_rows_of_another_protocol_are_not_mixed_in(data: Path, into: Path) -> None:
    _prepare(data, into)
    with pytest.raises(UsageError, match="--core-minutes"):
        _prepare(data, into, core_minutes=5)


def test_scenes_of_eval15_that_were_trained_on_are_named(tmp_path: Path, data: Path) -> None:
    leaking = tmp_path / "data"
    shutil.copytree(data, leaking)
    roles = _prepare(data, tmp_path / "before").roles
    for side in ("low", "high"):
        source = roles["train"][0].split("/")[1]
        shutil.copy(leaking / "our485" / side / source, leaking / "eval15" / side / "again.png")
    seen = _prepare(leaking, tmp_path / "into").seen
    assert seen["eval15/again.png"] is not None
    assert [twin for pair, twin in seen.items() if pair != "eval15/again.png"] == [None, None]


def test_the_default_is_the_cheapest_of_a_family_and_no_large_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    families = [registry.by_family(name) for name in ("mirnet-v2", "sci", "zerodcepp")]
    monkeypatch.setattr(registry, "architectures", lambda: families)
    assert leaderboard.default_networks() == ["sci", "zerodcepp-s"]


def test_patches_are_of_a_size_that_the_network_takes(data: Path, into: Path) -> None:
    protocol = _prepare(data, into)
    assert params_of("sci", protocol).train.patch_size == 32
    assert params_of("zerodcepp-s", protocol).train.patch_size == 36  # multiples of 12


@pytest.mark.slow
def test_the_command_names_what_failed_and_tries_it_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "BASELINES", {"input": baselines.untouched})
    into = tmp_path / "board"
    arguments = [str(data), "--networks", "zerodcepp-s", "unet-s", "--into", str(into)]
    arguments += ["--core-minutes", str(CORE_MINUTES), "--no-mlflow"]
    arguments += ["--set", "train.patch_size=32", "train.accumulate=2"]
    assert leaderboard.main(arguments) == 1
    assert list(load_failures(into)) == ["unet-s"]
    assert "train.accumulate" in load_failures(into)["unet-s"]
    assert {row.name for row in load_rows(into)} == {"zerodcepp-s", "input"}
    assert "unet-s" in (into / "index.html").read_text()

    assert leaderboard.main(arguments) == 1
    log = (into / "unet-s" / "log.txt").read_text()
    assert log.count("train.accumulate") == 2
