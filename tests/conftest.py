"""Fixtures of all tests: a clean environment, small places, a real S3 server."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mirnet.config import Settings, apply_engine_defaults
from mirnet.redaction import hide
from mirnet.signing.keys import PRIVATE, PUBLIC, make_keys
from mirnet.storage.s3server import S3Server

# before any engine is imported by a test module; two spinning threads on small tensors are many
# times slower than one when the machine has anything else to do
apply_engine_defaults(OMP_NUM_THREADS="1")

# A shell lets what it starts in the background ignore Ctrl-C (nohup: a hang-up), and so would every
# program that a test starts. What ignores by a function of its own does not hand that down.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

Command = Callable[..., int]

# every test signs and verifies, as in a team: with the same keys, in processes of its own as well
_KEYS = Path(tempfile.mkdtemp(prefix="mirnet-test-keys-"))
atexit.register(shutil.rmtree, _KEYS, ignore_errors=True)
make_keys(_KEYS)
_OURS = {
    "MIRNET_SIGNING_KEY": str(_KEYS / PRIVATE),
    "MIRNET_TRUSTED_KEYS": str(_KEYS / PUBLIC),
}
os.environ.update(_OURS)

_OUTSIDE = ("MIRNET_", "AWS_", "PREFECT_API", "MLFLOW_TRACKING", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the developer's shell has set must not reach a test, nor its secrets the next one."""
    for name in os.environ:
        if name.startswith(_OUTSIDE) and name not in _OURS:
            monkeypatch.delenv(name)
    yield
    hide(())


@pytest.fixture(autouse=True)
def _default_sigterm() -> None:
    """Ray replaces the handler for the whole process, and leaves its own when it shuts down."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything in a folder of the test's own."""
    return Settings(workspace=tmp_path / "workspace", reports_dir=tmp_path / "reports")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Reference vectors, where the checkout has them beside it."""
    folder = Path(__file__).parents[2] / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no reference vectors beside this checkout")
    return folder


@pytest.fixture(scope="session")
def lol_dir() -> Path:
    """Real LoL pairs, where the checkout has them beside it."""
    folder = Path(__file__).parents[2] / "shared" / "lol"
    if not folder.is_dir():
        pytest.skip("no LoL pairs beside this checkout")
    return folder


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's sample pairs. Read only: copy before you change them."""
    from mirnet.data.samples import make_sample_data

    folder = tmp_path_factory.mktemp("samples") / "data"
    make_sample_data(folder, seed=0)
    yield folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite store with its tables, which take seconds to create."""
    from mirnet.tracking import connect

    settings = Settings(workspace=tmp_path_factory.mktemp("empty-store"))
    connect(settings)
    return settings.workspace / "mlflow.db"


@pytest.fixture(scope="session")
def three_versions(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A store with versions 1 to 3 of the model 'mirnet'. Copy its database before changes."""
    from mirnet.tracking import registry, track
    from mirnet.tracking.trust import gate_decision
    from tests.small_models import make_model

    root = tmp_path_factory.mktemp("three-versions")
    settings = Settings(workspace=root / "workspace")
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    for seed in (1, 2, 3):
        folder = make_model(root / f"model-{seed}", seed=seed)
        with track(settings, purpose="train", name=f"seed {seed}", key=str(seed)) as run:
            pass
        version = registry.register(folder, name="mirnet", run_id=run.run_id, settings=settings)
        registry.sign_decision(version, gate_decision("keep"), settings)
    return settings


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole session."""
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=("test",)) as server:
        yield server
        server.kill()  # nothing in there to be kept


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the server, with credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://test/{uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Source and target, both local or both on S3."""
    if request.param == "local":
        (tmp_path / "source").mkdir()
        return str(tmp_path / "source"), str(tmp_path / "target")
    base = request.getfixturevalue("s3")
    return f"{base}/source", f"{base}/target"


@pytest.fixture
def variables(places: tuple[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """What a process needs in its environment to reach the places."""
    if not places[0].startswith("s3://"):
        return {}
    server: S3Server = request.getfixturevalue("s3_server")
    return server.environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of the smallest network."""
    import torch

    from mirnet.models import build, save_model

    torch.manual_seed(0)
    save_model(build("mirnet-xs", n_feat=8), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def enhance(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``mirnet enhance`` with these words; its exit code."""
    from mirnet.cli import main

    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))

    def run(*words: str) -> int:
        monkeypatch.setattr(
            sys, "argv", ["mirnet", "enhance", *words, "--model", str(folder), "--params", "demo"]
        )
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    return run
