"""Checks of this machine and its servers, with advice.

Each check covers one subject, changes nothing and never raises for what it finds.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator

from mirnet.config import Settings, engine_variable
from mirnet.errors import MirnetError, ServiceError, StorageError
from mirnet.params import PromoteParams
from mirnet.redaction import shown
from mirnet.results import Result

CheckOutcome = Literal["ok", "warning", "failed", "skipped"]

_DISTRIBUTION = "mirnet-pipeline"
_MODEL = PromoteParams().name
_TESTED = ((3, 11), (3, 12), (3, 13))
"""``make test-pythons``"""
_GIB = 1 << 30
_MIN_FREE_GIB = 2
_GOOD_FREE_GIB = 10
_MIN_MEMORY_GIB = 6
_MAX_SKEW_S = 60.0
"""S3 refuses requests that are 15 minutes off; logs of several hosts become useless earlier."""
_TIMEOUT_S = 10.0


class DoctorCheck(Result):
    name: str
    outcome: CheckOutcome
    found: Annotated[str, AfterValidator(shown)]
    advice: str = ""


class Verdict(NamedTuple):
    """A :class:`DoctorCheck` without its name."""

    outcome: CheckOutcome
    found: str
    advice: str = ""


def examine(settings: Settings) -> list[DoctorCheck]:
    """Run all checks, the quick ones first."""
    checks: dict[str, Callable[[Settings], Verdict]] = {
        "python": check_python,
        "packages": check_packages,
        "disk": check_disk,
        "memory": check_memory,
        "gpu": check_gpu,
        "compiler": check_compiler,
        "clock": check_clock,
        "mlflow": check_mlflow,
        "champion": check_champion,
        "storage": check_storage,
        "ray": check_ray,
        "prefect": check_prefect,
    }
    return [DoctorCheck(name=name, **check(settings)._asdict()) for name, check in checks.items()]


def check_python(_: Settings) -> Verdict:
    """Whether the tests pass on this version of Python."""
    version = platform.python_version()
    if sys.version_info[:2] not in _TESTED:
        return Verdict(
            "warning",
            version,
            "tested on " + ", ".join(f"{major}.{minor}" for major, minor in _TESTED),
        )
    return Verdict("ok", version)


def check_packages(_: Settings) -> Verdict:
    """Installed versions against the declared ranges."""
    from packaging.requirements import Requirement

    problems, met = [], 0
    for text in importlib.metadata.requires(_DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        problem = _package_problem(requirement.name, requirement.specifier.contains)
        if problem:
            problems.append(f"{problem}, wanted {requirement.name}{requirement.specifier}")
        else:
            met += 1
    if problems:
        return Verdict(
            "failed",
            "; ".join(problems),
            "pip install mirnet-pipeline, in an environment of its own",
        )
    return Verdict("ok", f"{met} requirements met")


def _package_problem(name: str, fits: Callable[[str], bool]) -> str | None:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    return None if fits(version) else f"{name} {version}"


def check_disk(settings: Settings) -> Verdict:
    """Free space on the disk of the workspace."""
    folder = settings.workspace.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    found = f"{free:.1f} GiB free at {folder}"
    advice = "remove old runs (see runbooks/disk-full.md) or set MIRNET_WORKSPACE"
    if not os.access(folder, os.W_OK):
        return Verdict("failed", f"{folder} is not writable", advice)
    if free < _MIN_FREE_GIB:
        return Verdict("failed", found, advice)
    if free < _GOOD_FREE_GIB:
        return Verdict("warning", found, advice)
    return Verdict("ok", found)


def check_memory(_: Settings) -> Verdict:
    """Physical memory; limits of a container are not considered."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    found = f"{total:.1f} GiB, {os.cpu_count()} CPUs"
    if total < _MIN_MEMORY_GIB:
        return Verdict(
            "warning", found, f"training with two Ray workers wants {_MIN_MEMORY_GIB} GiB"
        )
    return Verdict("ok", found)


def check_gpu(_: Settings) -> Verdict:
    """Warns of a GPU that torch cannot use, not of the absence of one."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Verdict("ok", ", ".join(names))
    listed = _listed_gpus()
    if listed:
        return Verdict(
            "warning",
            f"{listed[0]}, which torch {torch.__version__} cannot use",
            "install the CUDA build of the same torch version",
        )
    return Verdict("skipped", "none; training and enhancement run on CPU")


def check_compiler(_: Settings) -> Verdict:
    """torch.compile on a CPU calls a C++ compiler at run time."""
    from mirnet.hardware import find_compiler

    found = find_compiler()
    if found is None:
        return Verdict("warning", "no C++ compiler", "install g++, or leave train.compile off")
    return Verdict("ok", found)


def check_clock(settings: Settings) -> Verdict:
    """Our clock against those of the servers."""
    worst, seen = 0.0, []
    for url in (settings.tracking_uri, settings.s3_endpoint_url):
        if url and url.startswith(("http://", "https://")):
            skew = _skew_s(url)
            if skew is not None:
                seen.append(f"{skew:+.0f} s to {urlsplit(url).netloc.rpartition('@')[2]}")
                worst = max(worst, abs(skew))
    if not seen:
        return Verdict("skipped", "no remote server to compare with")
    found = ", ".join(seen)
    if worst > _MAX_SKEW_S:
        return Verdict(
            "failed",
            found,
            "set this machine's clock (chrony, systemd-timesyncd): S3 refuses 15 minutes",
        )
    return Verdict("ok", found)


def check_mlflow(settings: Settings) -> Verdict:
    """A real request to the tracking store."""
    from mirnet.tracking import check_tracking
    from mirnet.tracking.client import has_store

    if not has_store(settings):
        return Verdict("skipped", f"nothing was tracked in {settings.workspace} yet")
    try:
        check_tracking(settings)
    except MirnetError as error:
        return Verdict(
            "failed",
            str(error),
            "MIRNET_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD; "
            "see runbooks/mlflow-down.md",
        )
    uri = urlsplit(settings.mlflow_uri)
    return Verdict("ok", f"{uri.scheme}://{uri.hostname or uri.path}")


def check_champion(settings: Settings) -> Verdict:
    """Whether the next batch will accept the champion: keys, signature, history of its alias."""
    from mirnet.tracking.registry import check, list_versions

    try:
        if not any("champion" in version.aliases for version in list_versions(_MODEL, settings)):
            return Verdict("skipped", "no champion yet")
        version, statement = check(f"models:/{_MODEL}@champion", settings)
    except ServiceError:
        return Verdict("skipped", "MLflow does not answer")
    except MirnetError as error:
        return Verdict("failed", str(error), "see runbooks/model-refused.md")
    signed = f"signed by {statement.key_id[:16]}" if statement else "unsigned, which is allowed"
    return Verdict("ok", f"{version.label}, {signed}")


def check_storage(settings: Settings) -> Verdict:
    """The credentials against every bucket that the settings name."""
    from mirnet.storage.places import open_store

    uris = [uri for uri in (settings.storage_uri, settings.artifact_uri) if uri]
    remote = [uri for uri in uris if uri.startswith("s3://")]
    if not remote:
        return Verdict("skipped", "no bucket in the settings")
    try:
        for uri in remote:
            open_store(uri, settings).check()
    except StorageError as error:
        return Verdict(
            "failed",
            str(error),
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            "MIRNET_S3_ENDPOINT_URL; see runbooks/credentials-expired.md",
        )
    return Verdict("ok", ", ".join(remote))


def check_ray(settings: Settings) -> Verdict:
    """Whether the cluster's address accepts connections."""
    address = settings.ray_address
    if address is None or address == "in-process":
        return Verdict("skipped", "a Ray of our own")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or 8265), timeout=_TIMEOUT_S
        ).close()
    except (OSError, ValueError) as error:
        return Verdict(
            "failed",
            f"{address}: {error}",
            "start the cluster or correct MIRNET_RAY_ADDRESS; see runbooks/lost-node.md",
        )
    return Verdict("ok", address)


def check_prefect(_: Settings) -> Verdict:
    """A request to the API, with the credentials in force."""
    from mirnet.stack.probes import basic, request

    url = engine_variable("PREFECT_API_URL")
    if url is None:
        return Verdict("skipped", "no PREFECT_API_URL: one of our own")
    login = engine_variable("PREFECT_API_AUTH_STRING")
    try:
        status, _content = request(
            f"{url.rstrip('/')}/flows/count",
            headers=basic(login) if login else None,
            body={},
            timeout_s=_TIMEOUT_S,
        )
    except OSError as error:
        return Verdict("failed", f"{url}: {error}", "start the server or correct PREFECT_API_URL")
    if status != 200:
        return Verdict("failed", f"{url}: HTTP {status}", "PREFECT_API_AUTH_STRING: user:password")
    return Verdict("ok", url)


def _skew_s(url: str) -> float | None:
    """Seconds by which our clock is ahead of a server's; none if it sends no date."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            stamp = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        stamp = error.headers.get("Date")
    except OSError:
        return None
    return None if stamp is None else time.time() - parsedate_to_datetime(stamp).timestamp()


def _listed_gpus() -> list[str]:
    """One line per GPU of the driver; empty without a driver."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines()
