"""The house rules that imports can break: docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"config", "errors", "extras", "full_disk", "params", "results", "atomic", "redaction"}
MAY_IMPORT = {
    "config": {"errors", "redaction"},
    # of models and objectives the registry alone
    "params": {"errors", "presets", "images", "models", "objectives"},
    "errors": {"redaction"},
    "extras": {"errors"},
    "full_disk": {"errors"},
    "results": {"errors", "atomic"},
    "atomic": set(),
    "telemetry": {"atomic"},
    "hardware": {"config", "params"},
    "presets": set(),
    "ray_session": BASE | {"signals"},
    "images": {"errors"},
    "models": BASE - {"params"},
    "objectives": {"errors", "models"},
    "data": BASE | {"images", "junk", "beneath", "pages"},
    "inference": BASE | {"models", "hardware", "images", "signals"},
    "evaluation": BASE | {"images", "data", "inference", "pages"},
    "training": BASE
    | {
        "models",
        "objectives",
        "hardware",
        "storage",
        "images",
        "data",
        "evaluation",
        "logs",
        "signals",
    }
    | {"ray_session"},
    "search": BASE
    | {"models", "inference", "training", "storage", "images", "data", "evaluation", "pages"}
    | {"signals"},
    "storage": BASE | {"guarded", "signals", "junk", "beneath"},
    "batch": BASE
    | {"storage", "images", "inference", "cost", "logs", "signals", "junk", "liveness"}
    | {"ray_session"},
    "signing": BASE,
    "base_model": set(),
    "tracking": BASE | {"models", "signing", "logs", "signals", "liveness", "guarded"},
    "cost": BASE,
    "logs": {"redaction"},
    "redaction": set(),
    "pages": {"redaction"},
    "signals": set(),
    "liveness": set(),
    "guarded": set(),
    "junk": set(),
    "targets": {"errors"},
    "beneath": set(),
    "stack": BASE | {"logs", "signals", "storage", "signing"},
    "doctor": BASE | {"hardware", "storage", "stack", "tracking"},
}
COMPOSERS = {"stages", "cli", "__init__"}
VENDORS = {
    "prefect": ("flows/",),
    "ray": (
        "mirnet/ray_session.py",
        "mirnet/training/ray/",
        "mirnet/batch/ray",
        "mirnet/search/tuning.py",
    ),
    "mlflow": ("mirnet/tracking/",),
    "boto3": ("mirnet/storage/s3.py", "mirnet/storage/s3session.py"),
    "botocore": (
        "mirnet/storage/s3.py",
        "mirnet/storage/s3session.py",
        "mirnet/data/versioning.py",
    ),
    "cryptography": ("mirnet/signing/keys.py", "mirnet/storage/s3tls.py"),
    "great_expectations": ("mirnet/data/validation.py",),
    "dvc": ("mirnet/data/versioning.py",),
    "dvc_data": ("mirnet/data/versioning.py",),
}
SOURCES = sorted([*ROOT.glob("mirnet/**/*.py"), *ROOT.glob("flows/**/*.py")])


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_vendors_stay_in_their_rooms(path: Path) -> None:
    for module in imported_modules(path):
        homes = VENDORS.get(module.split(".")[0])
        assert homes is None or name_of(path).startswith(homes), f"{module} in {name_of(path)}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if name_of(p).startswith("mirnet")], ids=name_of
)
def test_imports_go_downwards(path: Path) -> None:
    room = path.relative_to(ROOT / "mirnet").parts[0].removesuffix(".py")
    if room in COMPOSERS:
        return
    for module in imported_modules(path):
        package, _, rest = module.partition(".")
        target = rest.split(".")[0]
        if package != "mirnet" or not target or target == room:
            continue
        known = (ROOT / "mirnet" / target).is_dir() or (ROOT / "mirnet" / f"{target}.py").is_file()
        assert not known or target in MAY_IMPORT[room], f"{name_of(path)} imports {module}"
        if room == "params" and target in ("models", "objectives"):
            assert module.startswith(f"mirnet.{target}.registry"), "the only part without torch"


def test_one_module_knows_the_layout_of_the_ledger() -> None:
    layout = ("lease.json", "in-hand.json", "conditions.json", "max-pixels.json", "summary.json")
    for path in [*ROOT.glob("mirnet/batch/**/*.py"), *ROOT.glob("flows/**/*.py")]:
        if path.name == "ledger.py":
            continue
        names = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not names & {*layout, "_mirnet", "runs"}, path


def test_the_library_knows_nothing_of_the_flows() -> None:
    for path in SOURCES:
        if name_of(path).startswith("mirnet"):
            assert not {m for m in imported_modules(path) if m.split(".")[0] == "flows"}, path


def test_help_loads_no_engine() -> None:
    code = (
        "import sys, mirnet.cli, mirnet.params\n"
        "assert mirnet.params.load_params('paper-v2').model.name == 'mirnet-v2'\n"
        "heavy = {'torch','ray','mlflow','prefect','dvc','great_expectations','boto3','pandas',"
        "'numpy','matplotlib','PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_prefect_server_imports_with_the_pinned_fastapi() -> None:
    """Newer fastapi raises TypeError in prefect 3.8; neither resolver nor `pip check` sees it."""
    done = subprocess.run(
        [sys.executable, "-c", "import flows, prefect.server.api.server"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_no_network_has_more_than_300_lines_of_its_own() -> None:
    sizes = {
        entry.parent.name: sum(len(p.read_text().splitlines()) for p in entry.parent.glob("*.py"))
        for entry in (ROOT / "mirnet" / "models").glob("*/entry.py")
    }
    assert len(sizes) >= 16
    assert {name: size for name, size in sizes.items() if size > 300} == {}


def test_no_file_is_too_long() -> None:
    long = {name_of(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long
