"""The whole pipeline on sample photographs: ``make demo``, ``mirnet demo``.

Data -> retrain flow -> a real S3 server with a bucket of dark photographs -> enhance flow. Without
``--home`` its files are in ``.demo`` (begun anew each time) and ``reports/``.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.demo_folder import DemoFolder
from flows.process_group import leave_foreground_group
from mirnet.config import apply_engine_defaults, environment
from mirnet.errors import UsageError

MIN_GAIN_DB = 2.0
RUN_NAME = "demo"


def make_data(folder: DemoFolder) -> None:
    """Sample pairs under DVC in a separate workspace; an earlier run's are kept."""
    from mirnet.data.samples import make_sample_data
    from mirnet.data.versioning import add, init_workspace

    data = folder.data
    if not data.is_dir():
        init_workspace(data.parent)
        make_sample_data(data, seed=0)
    add(data)


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


def fetch_images(source_uri: str, target_uri: str, results: Path) -> None:
    """Copies of the bucket's images and outputs, to be looked at without an S3 client."""
    from mirnet.config import load_settings
    from mirnet.storage.places import open_store

    settings = load_settings()
    source, target = open_store(source_uri, settings), open_store(target_uri, settings)
    for name in [info.key for info in source.list() if target.head(info.key)]:
        for side, store in (("dark", source), ("bright", target)):
            path = results / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(name).data)


@contextmanager
def steps_told() -> Iterator[None]:
    """Print each stage and epoch as it comes; the demo hides what Prefect logs."""
    from flows import time_limits
    from mirnet.training import launch

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("    %(message)s"))
    loggers = (time_limits.logger, launch.logger)
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def run_demo(folder: DemoFolder, overrides: list[str]) -> int:
    """Run the pipeline; 0 only if MIRNet beats autocontrast and every image is accounted for."""
    from flows.demo_report import DemoOutcome
    from flows.enhance import enhance
    from flows.policy import check_prefect
    from flows.retrain import retrain
    from mirnet import stages
    from mirnet.config import load_settings
    from mirnet.signing.keys import ensure_keys
    from mirnet.storage.s3server import S3Server

    ensure_keys(load_settings().keys_dir)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    print("1/4 data: sample pairs, versioned with DVC", flush=True)
    make_data(folder)
    seconds["data"] = time.perf_counter() - start

    check_prefect()  # the data may have filled the disk
    print("2/4 retrain flow: validate, train, evaluate, promote (some minutes)", flush=True)
    with steps_told():
        trained = retrain(str(folder.data), "demo", overrides, resume=RUN_NAME)
    seconds["retrain"] = time.perf_counter() - start - seconds["data"]
    seconds |= {
        "validate": trained.validation.seconds,
        "train": trained.train.seconds,
        "evaluate": trained.evaluation.seconds,
    }

    print("3/4 enhance flow: a bucket of dark photographs on a real S3 server", flush=True)
    begun = time.perf_counter()
    shutil.rmtree(folder.buckets, ignore_errors=True)  # of a run that was stopped here
    with (
        S3Server(folder.buckets, buckets=("dark", "bright")) as server,
        environment(**server.environment),
    ):
        count = fill_bucket(folder.data, "s3://dark/tonight")
        enhanced = enhance("s3://dark/tonight", "s3://bright/tonight", params="demo")
        seconds["enhance"] = time.perf_counter() - begun
        fetch_images("s3://dark/tonight", "s3://bright/tonight", folder.results)
        contact = stages.read_contact(enhanced, stages.load_run_config("demo"))
    seconds["total"] = time.perf_counter() - start

    print("4/4 outcome", flush=True)
    outcome = DemoOutcome.of(trained, enhanced, seconds, num_images=count)
    outcome.write(folder, report=Path(trained.evaluation.report_path or ""), contact=contact)
    outcome.show(folder)
    return outcome.verdict(min_gain_db=MIN_GAIN_DB)


def show_again(folder: DemoFolder) -> int:
    """The outcome of a complete demo."""
    from flows.demo_report import DemoOutcome

    outcome = DemoOutcome.load(folder.figures)
    outcome.show(folder)
    return outcome.verdict(min_gain_db=MIN_GAIN_DB)


def demo(folder: DemoFolder, *, anew: bool, overrides: list[str]) -> int:
    """Begin, resume or show again, and say which.

    Args:
        overrides: params of the training to change, as section.key=value.

    Raises:
        UsageError: the folder holds something else, a demo is running in it, or a complete one
            cannot take the overrides.
    """
    words = {
        "begins": "a new demo",
        "resumes": "resuming the demo that was stopped here; --anew starts over",
        "done": "complete already; --anew runs it again",
    }
    with folder.opened(anew=anew) as state, environment(**folder.variables):
        if state == "done" and overrides:
            raise UsageError(
                f"{folder.home}: complete already: --set needs --anew, which runs it again"
            )
        print(f"{folder.home}: {words[state]}", flush=True)
        # not before: Prefect reads its settings when it is imported
        from flows.policy import exit_code_of

        codes: list[int] = []

        def run() -> None:
            done = state == "done"
            codes.append(show_again(folder) if done else run_demo(folder, overrides))

        return exit_code_of(run) or codes[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="mirnet demo", description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)
    of_checkout = options.home is None
    folder = DemoFolder.of_checkout() if of_checkout else DemoFolder.below(options.home)
    anew = options.anew or of_checkout
    try:
        code = demo(folder, anew=anew, overrides=options.set)
    except UsageError as error:
        print(f"mirnet: {error}", file=sys.stderr)
        return error.exit_code
    page = folder.report
    if options.open and page.is_file() and not webbrowser.open(page.resolve().as_uri()):
        print(f"no browser here: open {page}")
    return code


if __name__ == "__main__":
    leave_foreground_group()
    apply_engine_defaults()
    sys.exit(main())
