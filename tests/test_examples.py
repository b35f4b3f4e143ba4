"""The scripts of ``examples/``, run as a user runs them, on small images."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import PIL.Image
import pytest
import torch

from mirnet import Enhancer
from mirnet.evaluation import metrics
from mirnet.images import read_rgb
from mirnet.models import build, save_model
from mirnet.storage.s3server import free_ports

ROOT = Path(__file__).parents[1]
IMAGE_PAGES = ["README.md", "docs/inference.md"]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, three pairs, and a file that is no image; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_COMPILE", "false")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        save_model(build("mirnet-xs", n_feat=8), Path(name))
    rng = np.random.default_rng(0)
    for side in ("low", "high"):
        Path("pairs", side).mkdir(parents=True)
    for number in range(3):
        high = rng.integers(60, 250, (24, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(high).save(f"pairs/high/{number}.png")
        PIL.Image.fromarray(high // 8).save(f"pairs/low/{number}.png")
    return tmp_path


def run(script: str, *words: str) -> None:
    """In this process, which has torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")


def outputs(target: str) -> dict[str, np.ndarray]:
    return {path.name: read_rgb(path) for path in Path(target).iterdir()}


def expected() -> dict[str, np.ndarray]:
    enhancer = Enhancer.load("first", compile=False)
    return {path.name: enhancer(read_rgb(path)) for path in Path("pairs/low").glob("*.png")}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, pixels in wanted.items():
        assert np.array_equal(found[name], pixels), name


def test_each_says_how_to_run_it_and_is_named_in_readme_and_docs() -> None:
    for path in EXAMPLES:
        named = ["docs/guides/mlops-team.md"] if path.name == "print_alerts.py" else IMAGE_PAGES
        pages = [ROOT / page for page in named]
        usage = f"python examples/{path.name} "
        assert usage in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
        assert all(f"examples/{path.name}" in page.read_text("utf-8") for page in pages), path.name
    assert len(EXAMPLES) == 4


def test_print_alerts() -> None:
    (port,) = free_ports(1)
    script = [sys.executable, str(ROOT / "examples" / "print_alerts.py"), str(port)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as printer:
        try:
            assert printer.stdout is not None
            alert = Request(f"http://127.0.0.1:{port}", data=b'{"subject": "no champion"}')
            for _ in range(100):
                try:
                    urlopen(alert, timeout=5).close()
                    break
                except URLError:
                    time.sleep(0.1)
            assert "no champion" in printer.stdout.readline()
        finally:
            printer.terminate()


def test_enhance_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs/low/notes.txt").write_text("no picture")
    run("enhance_folder.py", "pairs/low", "bright", "--model", "first")
    said = capsys.readouterr().out
    assert "left out: notes.txt" in said and "1.png: 32x24" in said
    assert_same(outputs("bright"), expected())


def test_a_model_that_does_not_exist_is_one_line(folder: Path) -> None:
    for words in (
        ("enhance_folder.py", "pairs/low", "bright", "--model"),
        ("compare_models.py", "pairs", "first"),
    ):
        with pytest.raises(SystemExit, match=r"\.py: .*missing"):
            run(*words, "missing")


def test_compare_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("compare_models.py", "pairs", "first", "second")
    _, first, second, gain = capsys.readouterr().out.splitlines()
    highs = {name: read_rgb(folder / "pairs" / "high" / name) for name in expected()}
    psnr = np.mean([metrics.psnr(pixels, highs[name]) for name, pixels in expected().items()])
    assert first.split()[:2] == ["first", f"{psnr:.2f}"]
    difference = psnr - float(second.split()[1])
    assert f"first is better by {difference:+.2f}"[:-1] in gain and "on 3 images" in gain


def test_compare_a_model_with_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("compare_models.py", "pairs", "first", "first")
    _, first, again, gain = capsys.readouterr().out.splitlines()
    assert first.split()[1:3] == again.split()[2:4], "the same scores"
    assert "+0.00 dB (+0.00 to +0.00)" in gain


def test_ray_batch(folder: Path) -> None:
    wanted = expected()
    Path("pairs/low/cut.png").write_bytes(Path("pairs/low/0.png").read_bytes()[:200])
    script = str(ROOT / "examples" / "ray_batch.py")
    done = subprocess.run(
        [sys.executable, script, "pairs/low", "bright", "--model", "first"],
        # Ray's workers yield to everything else, by default
        env=os.environ | {"RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(done.stdout.splitlines())
    assert lines[:3] == [f"enhanced: {number}.png" for number in range(3)], done.stdout
    assert lines[3].startswith("left out: cut.png: ") and len(lines) == 4
    assert_same(outputs("bright"), wanted)


def test_alerts_are_printed_without_control_characters() -> None:
    """They come from the network, and a terminal would obey them."""
    example = Path(__file__).parents[1] / "examples" / "print_alerts.py"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", _ON_A_FREE_PORT, str(example)],
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        body = json.dumps({"subject": "run\x1b[2J", "body": "a\x07b\nc"}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{port}", body, timeout=30).close()
        assert listener.stdout.readline() == "run [2J: a b c\n"
        listener.terminate()


_ON_A_FREE_PORT = """
import runpy, sys
from http.server import HTTPServer
alerts = runpy.run_path(sys.argv[1])["Alerts"]
server = HTTPServer(("127.0.0.1", 0), alerts)
print(server.server_port)
server.serve_forever()
"""
