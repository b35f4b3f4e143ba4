"""The whole pipeline on sample photographs: ``make demo``.

Data -> retrain flow -> a real S3 server with a bucket of dark photographs -> enhance flow. Its
files are in ``.demo`` (recreated each time) and ``reports/``.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from flows.process_group import leave_foreground_group
from mirnet.config import apply_engine_defaults, environment

WORKSPACE = Path(".demo")
REPORTS = Path("reports")
MIN_GAIN_DB = 2.0
PLACES: dict[str, str | None] = {
    "MIRNET_WORKSPACE": str(WORKSPACE / "workspace"),
    "MIRNET_REPORTS_DIR": str(WORKSPACE / "reports"),
    # keys of its own, in the workspace
    "MIRNET_SIGNING_KEY": None,
    "MIRNET_TRUSTED_KEYS": None,
    "MIRNET_ALLOW_UNSIGNED": None,
    # compiling takes longer than a dozen small images
    "MIRNET_COMPILE": "false",
    "PREFECT_HOME": str((WORKSPACE / "prefect").resolve()),
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # servers and proxies of the environment must not affect the demo
    "PREFECT_API_URL": None,
    "PREFECT_API_KEY": None,
    "NO_PROXY": "127.0.0.1,localhost",
}


def make_data() -> Path:
    """Sample pairs under DVC in a separate workspace."""
    from mirnet.data.samples import make_sample_data
    from mirnet.data.versioning import add, init_workspace

    data = WORKSPACE / "project" / "data"
    init_workspace(data.parent)
    make_sample_data(data, seed=0)
    add(data)
    return data


def fill_bucket(data: Path, source_uri: str) -> int:
    """Dark photographs and one truncated file; returns their number."""
    from mirnet.config import load_settings
    from mirnet.storage.places import open_store

    store = open_store(source_uri, load_settings())
    lows = sorted((data / "eval15" / "low").iterdir())
    for path in lows:
        store.put_if_absent(path.name, path.read_bytes(), content_type="image/png")
    broken = lows[0].read_bytes()
    store.put_if_absent("truncated.png", broken[: len(broken) // 2], content_type="image/png")
    return len(lows) + 1


def main() -> int:
    """Run the pipeline; 0 only if MIRNet beats autocontrast and every image is accounted for."""
    from flows.demo_report import DemoOutcome
    from flows.enhance import enhance
    from flows.retrain import retrain
    from mirnet.config import load_settings
    from mirnet.signing.keys import make_keys
    from mirnet.storage.s3server import S3Server

    make_keys(load_settings().keys_dir)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    print("1/4 data: sample pairs, versioned with DVC", flush=True)
    data = make_data()
    seconds["data"] = time.perf_counter() - start

    print("2/4 retrain flow: validate, train, evaluate, promote (some minutes)", flush=True)
    trained = retrain(str(data), "demo")
    seconds["retrain"] = time.perf_counter() - start - seconds["data"]
    seconds |= {
        "validate": trained.validation.seconds,
        "train": trained.train.seconds,
        "evaluate": trained.evaluation.seconds,
    }

    print("3/4 enhance flow: a bucket of dark photographs on a real S3 server", flush=True)
    begun = time.perf_counter()
    with (
        S3Server(WORKSPACE / "s3", buckets=("dark", "bright")) as server,
        environment(**server.environment),
    ):
        count = fill_bucket(data, "s3://dark/tonight")
        enhanced = enhance("s3://dark/tonight", "s3://bright/tonight", params="demo")
    seconds["enhance"] = time.perf_counter() - begun
    seconds["total"] = time.perf_counter() - start

    print("4/4 outcome", flush=True)
    outcome = DemoOutcome.of(trained, enhanced, seconds)
    outcome.write(REPORTS, page=Path(trained.evaluation.report_path or ""))
    outcome.show(REPORTS)
    return outcome.verdict(num_images=count, min_gain_db=MIN_GAIN_DB)


if __name__ == "__main__":
    leave_foreground_group()
    apply_engine_defaults()
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    WORKSPACE.mkdir()
    with environment(**PLACES):
        from flows.policy import exit_code_of

        sys.exit(exit_code_of(main))
