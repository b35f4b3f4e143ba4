"""MLflow's own pages over a store that we filled: what analysts see."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import complaints, fetched, open_browser
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mirnet.config import Settings, child_environment
from mirnet.params import Params
from mirnet.results import DataVersion
from mirnet.tracking import connect, track

pytestmark = pytest.mark.slow
PATIENCE_S = 240


@pytest.fixture
def address(versions: Settings) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--host 127.0.0.1 --port {port} --workers 1 --backend-store-uri"
    command = [sys.executable, "-m", "mlflow", "server", *options.split(), versions.mlflow_uri]
    server = subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(PATIENCE_S * 2):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def open_page(browser: Chrome, url: str, *texts: str) -> None:
    browser.get(url)
    body = (By.TAG_NAME, "body")
    WebDriverWait(browser, PATIENCE_S).until(
        lambda b: all(text in b.find_element(*body).text for text in texts)
    )


def test_analysts_see_runs_data_tables_pictures_and_aliases(
    versions: Settings, version: DataVersion, address: str, tmp_path: Path
) -> None:
    page = tmp_path / "index.html"
    page.write_text("<h1>pictures side by side</h1>")
    with track(versions, purpose="evaluate", name="mirnet eval15 d48f655e") as run:
        run.log_params(Params())
        run.log_data(version, context="evaluation", split="eval15")
        run.log_metrics({"eval/psnr": 17.25}, data=version)
        run.log_table(pd.DataFrame({"pair_id": ["eval15/1.png"], "psnr": [17.25]}), "scores.json")
        run.log_image(np.full((40, 60, 3), 128, np.uint8), "eval15 1")
        run.log_file(page)
    connect(versions).set_registered_model_alias("mirnet", "champion", "2")
    experiment = f"{address}/#/experiments/{run.experiment_id}"
    with open_browser(tmp_path / "profile", width=1500) as browser:
        open_page(browser, f"{experiment}/runs", "mirnet eval15 d48f655e", version.digest[:12])
        one = f"{experiment}/runs/{run.run_id}"
        open_page(browser, one, run.run_id, version.digest, "train.lr", "eval/psnr", "17.25")
        open_page(browser, f"{one}/artifacts/scores.json", "eval15/1.png")
        open_page(browser, f"{one}/artifacts/index.html", "index.html")
        WebDriverWait(browser, PATIENCE_S).until(lambda b: b.find_elements(By.TAG_NAME, "iframe"))
        browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
        WebDriverWait(browser, PATIENCE_S).until(
            lambda b: "side by side" in b.find_element(By.TAG_NAME, "body").text
        )
        browser.switch_to.default_content()
        open_page(browser, f"{address}/#/models/mirnet", "champion", "Version 3")
        assert [c for c in complaints(browser) if "SEVERE" in c or "rror" in c] == []
        outside = [u for u in fetched(browser) if u.startswith("http") and address not in u]
        assert outside == []
