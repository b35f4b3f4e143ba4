"""``--json``: on every command, one document alone on standard output, as documented."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mirnet import stages
from mirnet.cli.terminal import Commands, JsonOption, console, say, say_json
from mirnet.config import Settings
from mirnet.models import export
from mirnet.results import DataVersion, EvaluationResult, PromotionResult, ValidationResult
from mirnet.tracking import aliases, connect, registry, track
from mirnet.tracking.versions import SIGNATURE_TAG
from tests.batch.samples import enhance_batch, fill, picture
from tests.cli.commands import leaves, parsed, run
from tests.made_results import score, trained

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
STAGES = {"validate", "train", "evaluate", "promote", "enhance", "reproduce", "search", "verify"}
LINES = {
    "stack logs": "lines as the service wrote them",
    "demo": "its figures are in demo.json",
    "ui": "runs until Ctrl-C",
}
Command = Callable[..., Any]


def documented() -> dict[str, Any]:
    """Example by command; several commands share the last of fewer examples."""
    found: dict[str, Any] = {}
    blocks = re.split(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: list[str] = []
    groups = {path[0] for path, _ in leaves() if len(path) == 2}
    for text, example in zip(blocks[::2], blocks[1::2], strict=False):
        here = re.findall(r"`((?:\w+ )?\w+)`", text.rpartition("\n## ")[2])
        here = [n for n in here if n.split()[0] in {*groups, "lineage", "doctor", "models", "s3"}]
        names = here or names[1:]
        found |= dict.fromkeys(names, parsed(example))
    return found


def test_every_command_has_it_and_is_on_the_page() -> None:
    options = {" ".join(path): {p.name for p in command.params} for path, command in leaves()}
    assert {name for name, names in options.items() if "as_json" not in names} == set(LINES)
    shown = {" ".join(path) for path, command in leaves() if not command.hidden}
    assert set(documented()) | STAGES == shown - set(LINES)


def test_what_else_is_printed_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    app = Commands()

    @app.command()
    def noisy(as_json: JsonOption = False) -> None:
        print("by print")
        typer.echo("by typer")
        console.print("by rich")
        say("by say")
        sys.stdout.write("by write\n")
        say_json({"figure": float("nan"), "path": Path("a[1].jpg"), "s3": "s3://k:secret@b"})
        raise typer.Exit(3)

    assert CliRunner().invoke(app, []).exit_code == 3
    done = CliRunner().invoke(app, ["--json"])
    assert done.exit_code == 3
    assert parsed(done.stdout) == {"figure": None, "path": "a[1].jpg", "s3": "s3://***@b"}
    assert [line.removeprefix("by ") for line in done.stderr.splitlines()] == [
        *("print", "typer", "rich", "say", "write")
    ]
    assert "by print" in CliRunner().invoke(app, []).stdout, "the next one is as before"


@pytest.fixture
def mirnet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command with ``--json``; its document, which has the keys of the page."""
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))
    monkeypatch.chdir(tmp_path)
    examples = documented()

    def keys(value: Any) -> Any:
        first = value[0] if isinstance(value, list) and value else value
        return set(first) if isinstance(first, dict) else first

    def execute(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert run(monkeypatch, *words, "--json") == code
        document = parsed(capsys.readouterr().out)
        name = " ".join(words[:2]) if " ".join(words[:2]) in examples else words[0]
        if name == "lineage":  # what is known of that image
            assert keys(document) <= keys(examples[name])
        elif name in examples and document:  # no versions, no runs, no move
            assert keys(document) == keys(examples[name])
        return document

    return execute


def test_runs(store: Settings, mirnet: Command) -> None:
    assert mirnet("runs", "list") == []
    for seed, psnr in ((0, 20.0), (1, float("nan"))):
        with track(store, purpose="train", name=f"seed {seed}") as tracked:
            tracked.log_metrics({"val/best_psnr": psnr, "val/psnr": 18.0 + seed})
            connect(store).log_param(tracked.run_id, "train.seed", str(seed))
    newest, oldest = mirnet("runs", "list")
    assert (oldest["name"], oldest["metrics"]["val/best_psnr"]) == ("seed 0", 20.0)
    compared = mirnet("runs", "compare", oldest["run_id"], newest["run_id"])
    assert compared["differences"][0]["key"] == "train.seed"
    (recipe,) = mirnet("runs", "seeds", "--metric", "val/psnr")
    assert (recipe["mean"], recipe["seeds"]) == (18.5, ["0", "1"])


def test_registry(versions: Settings, mirnet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "verify", registry.package_digests)  # without the proof
    assert mirnet("registry", "history") == []
    first = mirnet("registry", "promote", "models:/mirnet/1", "--why", "first")
    assert (first["version"], first["from_version"]) == ("1", None)
    again = mirnet("registry", "promote", "models:/mirnet/1", "--why", "again")
    assert {key: value for key, value in again.items() if value is not None} == {
        "moved": False,
        "name": "mirnet",
        "version": "1",
    }
    assert first["moved"]
    mirnet("registry", "promote", "models:/mirnet/2", "--why", "second")
    assert mirnet("registry", "rollback", "--why", "too green")["version"] == "1"
    assert len(mirnet("registry", "history")) == 3
    listed = mirnet("registry", "list")
    assert [each["version"] for each in listed] == ["3", "2", "1"]
    assert SIGNATURE_TAG not in listed[0]["tags"]
    shown = mirnet("registry", "show", "models:/mirnet@champion")
    assert (shown["version"], Path(shown["folder"]).is_dir()) == ("1", True)
    verified = mirnet("registry", "verify")
    assert {each["reference"]: each["problems"] for each in verified} == {
        "models:/mirnet@champion": [],
        "models:/mirnet@previous": [],
    }
    assert mirnet("registry", "sign") == {"signed": []}


def test_stages_print_their_results(
    mirnet: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = DataVersion(path="data", digest="d.dir", num_files=2, size=9, status="clean")
    results = {
        "validate": ValidationResult(version=version, num_pairs={"our485": 1}, passed=False),
        "train": trained("run", "model"),
        "evaluate": EvaluationResult(
            model="model",
            digest="d.dir",
            split="eval15",
            methods={"mirnet": score(3)},
            scores_path="scores.parquet",
            seconds=1.0,
        ),
        "promote": PromotionResult(
            promoted=False, reasons=("worse",), name="mirnet", version="2", alias=None
        ),
    }
    monkeypatch.setattr(stages, "check_version", lambda *_, **__: version)
    for name, result in results.items():
        monkeypatch.setattr(stages, name, lambda *_, found=result, **__: found)
        refused = name in ("validate", "promote")
        assert mirnet(name, code=3 if refused else 0) == result.model_dump(mode="json")


def test_data(mirnet: Command, tmp_path: Path) -> None:
    for side in ("low", "high"):
        fill(str(tmp_path / "taken" / side), {f"{n}.png": picture(n) for n in range(2)})
    (tmp_path / "taken" / "low" / "3.png").write_bytes(picture(3))
    done = mirnet("data", "import", "taken", "--skip-unpaired")
    assert done["pairs"] == 2
    assert done["left_out"]["images without a partner"] == 1
    assert done["version"]["status"] == "untracked"
    assert mirnet("data", "status", code=1) == done["version"]


def test_outputs_and_keys(mirnet: Command, tmp_path: Path) -> None:
    made = mirnet("keys", "new")
    assert made["made"] and Path(made["private_key"]).is_file()
    assert not mirnet("keys", "new", "--if-missing")["made"]
    fill("photos", {"a.png": picture(1)})
    enhance_batch("photos", "bright")
    assert mirnet("verify", "bright")["intact"] == 1
    assert mirnet("lineage", "bright/a.png")["input"].endswith("a.png")
    assert mirnet("stack", "status", "--home", "none", code=1)["services"] == {}


def test_a_model_folder(mirnet: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_network: object, target: Path) -> float:
        target.write_bytes(b"model")
        return 1e-7

    monkeypatch.setattr(export, "export_pt2", write)
    exported = mirnet("weights", "export", "model.pt2", "--model", str(folder))
    assert Path("model.pt2").stat().st_size == exported["bytes"]


def test_an_error_prints_no_document(
    mirnet: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("promote",), ("evaluate",), ("registry", "show", "models:/none/1")):
        assert run(monkeypatch, *words, "--json") == 2
        told = capsys.readouterr()
        # MLflow may say before it that it makes its tables
        assert told.out == "" and told.err.splitlines()[-1].startswith("mirnet: ")
