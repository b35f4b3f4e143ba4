from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mirnet.cli import registry as registry_cli, runs as runs_cli, weights as weights_cli
from mirnet.config import Settings
from mirnet.errors import DataError, UsageError
from mirnet.models import Network, load_model
from mirnet.params import Params, TrainParams
from mirnet.results import EpochMetrics
from mirnet.tracking import EpochLogger, aliases, connect, registry, track
from tests.small_models import make_model


def invoke(app: object, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirnet.cli.terminal.console.width", 250)


def here(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(settings.workspace))


def train_once(settings: Settings, *, seed: int, psnr: float, lr: float = 1e-3) -> str:
    params = Params(train=TrainParams(seed=seed, lr=lr))
    with track(settings, purpose="train", name=f"seed {seed} lr {lr}") as run:
        run.log_params(params)
        run.log_metrics({"val/best_psnr": psnr})
    return run.run_id


def test_runs_on_the_terminal(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, store)
    assert "no runs" in invoke(runs_cli.app, "list")
    first = train_once(store, seed=0, psnr=20.0)
    train_once(store, seed=1, psnr=22.0)
    train_once(store, seed=0, psnr=15.0, lr=0.5)
    with track(store, purpose="evaluate", name="mirnet eval15") as run:
        run.log_metrics({"eval/psnr": 19.25})

    listed = invoke(runs_cli.app, "list")
    assert "FINISHED" in listed and first[:8] in listed and "19.25" in listed
    assert "mirnet eval15" not in invoke(runs_cli.app, "list", "--purpose", "train")
    found = invoke(runs_cli.app, "list", "--filter", "metrics.`val/best_psnr` > 21")
    assert "seed 1 lr" in found and "seed 0 lr" not in found

    compared = invoke(runs_cli.app, "compare", first[:10], "seed 1 lr 0.001")
    assert "train.seed" in compared and "train.lr" not in compared, "only what differs"
    assert "val/best_psnr" in compared

    spread = invoke(runs_cli.app, "seeds", "--metric", "val/best_psnr")
    assert "0, 1" in spread and "21" in spread and "1.414" in spread
    assert spread.count("cpu mirnet-xs") == 1, "a recipe with one seed has no spread"

    assert "no recipe has eval/psnr of two seeds" in invoke(runs_cli.app, "seeds")
    for command in (["list", "--filter", "nonsense !!"], ["compare", "no-such-run"]):
        with pytest.raises(UsageError):
            invoke(runs_cli.app, *command)


def test_seeds_are_compared_by_the_scores_of_their_models(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, store)
    for seed, psnr in ((0, 19.0), (1, 20.0), (2, 24.0)):
        trained = train_once(store, seed=seed, psnr=1.0)
        for method, split, found in (
            ("mirnet", "eval15", psnr),
            ("mirnet", "val", 3.0),
            ("champion", "eval15", 5.0),
        ):
            tags = {"mirnet.training_run": trained, "mirnet.split": split, "mirnet.method": method}
            with track(store, purpose="evaluate", name=method, tags=tags) as run:
                run.log_metrics({"eval/psnr": found})
    told = invoke(runs_cli.app, "seeds")
    assert "0, 1, 2" in told
    assert all(figure in told for figure in ("21", "2.646", "19", "24")), "mean, std, extremes"
    assert " 3 " in invoke(runs_cli.app, "seeds", "--split", "val")


def test_delivery_on_the_terminal(
    store: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here(monkeypatch, store)
    pending = tmp_path / "pending.jsonl"
    with track(store, purpose="train", name="run") as run:
        logger = EpochLogger("http://127.0.0.1:9", run.run_id, pending)
        logger(EpochMetrics(epoch=1, step=1, lr=0.1, train_loss=0.5, train_psnr=12.5))
    assert "1 entries delivered" in invoke(runs_cli.app, "deliver", str(pending))
    assert connect(store).get_run(run.run_id).data.metrics["train/psnr"] == 12.5
    with pytest.raises(DataError, match="nothing waits"):
        invoke(runs_cli.app, "deliver", str(pending))


def test_the_registry_on_the_terminal(versions: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, versions)
    monkeypatch.setattr(aliases, "verify", registry.package_digests)  # without the proof
    assert "no alias of mirnet" in invoke(registry_cli.app, "history")
    moved = invoke(registry_cli.app, "promote", "models:/mirnet/1", "--why", "first one")
    assert "champion of mirnet: none -> 1" in moved
    again = invoke(registry_cli.app, "promote", "models:/mirnet/1", "--why", "again")
    assert "champion already" in again
    invoke(registry_cli.app, "promote", "models:/mirnet/2", "--why", "better")
    assert "2 -> 1" in invoke(registry_cli.app, "rollback", "--why", "too green")
    listed = invoke(registry_cli.app, "list")
    assert listed.index("3") < listed.index("previous") < listed.index("champion")
    shown = invoke(registry_cli.app, "show", "models:/mirnet@champion")
    assert "version 1, READY" in shown and "mirnet.weights" in shown and "native" in shown
    told = invoke(registry_cli.app, "history")
    assert all(word in told for word in ("first one", "better", "too green", "rollback"))
    assert "nobody has no versions" in invoke(registry_cli.app, "list", "--name", "nobody")


def test_a_registered_version_is_exported(
    versions: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here(monkeypatch, versions)
    exported = []

    def export(network: Network, target: Path) -> float:  # the real one takes seconds
        exported.append(network)
        target.touch()
        return 0.0

    monkeypatch.setattr("mirnet.models.export.export_pt2", export)
    target = tmp_path / "net.pt2"
    invoke(weights_cli.app, "export", str(target), "--model", "models:/mirnet/2")
    (network,), wanted = exported, load_model(make_model(tmp_path / "two", seed=2)).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    with pytest.raises(UsageError, match="there are 3, 2, 1"):
        invoke(weights_cli.app, "export", str(target), "--model", "models:/mirnet/9")
