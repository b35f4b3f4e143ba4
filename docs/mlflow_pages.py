"""Screenshots of the real MLflow pages for docs/mlflow.md.

    python docs/mlflow_pages.py .demo/workspace [runs run curves report model registry]

opens the store of a finished demo with ``mlflow server`` and Chromium (Debian: chromium,
chromium-driver) and writes docs/images/mlflow-*.png.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mirnet.config import Settings, child_environment
from mirnet.tracking import connect
from mirnet.tracking.notes import runs_page

IMAGES = Path(__file__).parent / "images"
PATIENCE_S = 240


@contextmanager
def mlflow_server(workspace: Path) -> Iterator[str]:
    """``mlflow server`` on loopback over the SQLite store of a workspace; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{(workspace / 'mlflow.db').resolve()}"
    options = f"--host 127.0.0.1 --port {port} --workers 1 --backend-store-uri {store}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options.split()],
        env=child_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("mlflow server did not start")


def pages(workspace: Path) -> dict[str, tuple[str, str]]:
    """Name of each page -> its path and a text that is there once it is ready."""
    client = connect(Settings(workspace=workspace))
    by_name = {e.name: e.experiment_id for e in client.search_experiments()}
    evaluate, train = by_name["mirnet-evaluate"], by_name["mirnet-train"]
    trained = client.search_runs([train], max_results=1)[0].info
    runs = client.search_runs([evaluate], "tags.`mirnet.method` = 'mirnet'", max_results=1)
    scored = runs[0].info
    # a search leaves the models out
    model_id = client.get_run(scored.run_id).inputs.model_inputs[0].model_id
    return {
        "runs": (f"/{runs_page(evaluate)}", scored.run_name),
        "run": (f"/#/experiments/{train}/runs/{trained.run_id}", trained.run_id),
        "curves": (f"/#/experiments/{train}/runs/{trained.run_id}/model-metrics", "val"),
        "report": (f"/#/experiments/{evaluate}/runs/{scored.run_id}/artifacts", "index.html"),
        "model": (f"/#/experiments/{train}/models/{model_id}", "eval/psnr"),
        "registry": ("/#/models/mirnet", "History of the aliases"),
        "version": ("/#/models/mirnet/versions/1", "Limits"),
    }


def main(workspace: Path, *names: str) -> None:
    """Write the screenshots, or those of these names."""
    IMAGES.mkdir(exist_ok=True)
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile, mlflow_server(workspace) as address:
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={profile}")
        options.add_argument("--window-size=1360,820")
        service = ChromeService(executable_path=shutil.which("chromedriver"))
        browser = Chrome(options=options, service=service)
        try:
            for name, (path, text) in pages(workspace).items():
                if names and name not in names:
                    continue
                browser.get(address + path)
                WebDriverWait(browser, PATIENCE_S).until(
                    lambda b, text=text: text in b.find_element(By.TAG_NAME, "body").text
                )
                for button in browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close']"):
                    button.click()
                if name == "report":
                    browser.find_element(By.XPATH, "//*[text()='index.html']").click()
                    WebDriverWait(browser, PATIENCE_S).until(
                        lambda b: b.find_elements(By.TAG_NAME, "iframe")
                    )
                    time.sleep(3)
                time.sleep(2)
                target = IMAGES / f"mlflow-{name}.png"
                browser.save_screenshot(str(target))
                print(target)
        finally:
            browser.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".demo/workspace"), *sys.argv[2:])
