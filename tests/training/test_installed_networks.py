"""A network of another package in a Ray worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.plain_package import install


@pytest.mark.slow
def test_a_ray_worker_finds_it_by_its_entry_point(tmp_path: Path) -> None:
    code = (
        "import ray\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "@ray.remote\n"
        "def built():\n"
        "    from mirnet.params import load_params\n"
        "    params = load_params('demo', overrides=('model.name=plain-s',))\n"
        "    return type(params.model.config.build()).__module__\n"
        "print(ray.get(built.remote()))\n"
    )
    path = os.pathsep.join([str(install(tmp_path / "site-packages")), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "plain_network.network"
