"""The folder of a demo: what is kept in it, and whether a run begins, resumes or is done."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from mirnet.config import engine_variable
from mirnet.errors import UsageError
from mirnet.targets import check_folder_target

State = Literal["begins", "resumes", "done"]
_MARK = ".mirnet-demo"


@dataclass(frozen=True)
class DemoFolder:
    """Places of a demo.

    ``home``: workspace, data, buckets; ``figures``: the JSON that is written last; ``results``:
    the report ``index.html``, the contact sheet and the images. ``reserved``: the home is of demos
    alone, so what an earlier release left there without a mark is one, too.
    """

    home: Path
    figures: Path
    results: Path
    reserved: bool = False

    @classmethod
    def of_checkout(cls) -> Self:
        """Those of ``make demo``."""
        results = Path("reports/demo")
        return cls(Path(".demo"), results.with_suffix(".json"), results, reserved=True)

    @classmethod
    def below(cls, home: Path) -> Self:
        """Everything below one folder."""
        return cls(home, home / "demo.json", home / "results")

    @property
    def report(self) -> Path:
        """The page with the images of the evaluation."""
        return self.results / "index.html"

    @property
    def data(self) -> Path:
        """The sample pairs, in a DVC project of their own."""
        return self.home / "project" / "data"

    @property
    def buckets(self) -> Path:
        """Data of the S3 server."""
        return self.home / "s3"

    @property
    def variables(self) -> dict[str, str | None]:
        """Environment of the demo: its own stores, nothing of a server that is configured."""
        return {
            "MIRNET_WORKSPACE": str(self.home / "workspace"),
            "MIRNET_REPORTS_DIR": str(self.home / "reports"),
            "MIRNET_TRACKING_URI": None,
            "MIRNET_ARTIFACT_URI": None,
            "MIRNET_STORAGE_URI": None,
            "MIRNET_CACHE_DIR": None,
            # without Ray is still without Ray
            "MIRNET_RAY_ADDRESS": "in-process" if _without_ray() else None,
            "MIRNET_NUM_WORKERS": None,
            "MIRNET_BATCH_ENGINE": None,
            "RAY_ADDRESS": None,
            "RAY_AUTH_MODE": None,
            "RAY_AUTH_TOKEN": None,
            # keys of its own, in the workspace
            "MIRNET_SIGNING_KEY": None,
            "MIRNET_TRUSTED_KEYS": None,
            "MIRNET_ALLOW_UNSIGNED": None,
            # compiling takes longer than a dozen small images
            "MIRNET_COMPILE": "false",
            "PREFECT_HOME": str((self.home / "prefect").resolve()),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            # servers and proxies of the environment must not affect the demo
            "PREFECT_API_URL": None,
            "PREFECT_API_KEY": None,
            "PREFECT_API_AUTH_STRING": None,
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @contextmanager
    def opened(self, *, anew: bool) -> Iterator[State]:
        """Make the folder, or find what an earlier run left in it; for one process at a time.

        Args:
            anew: remove what an earlier run left.

        Raises:
            UsageError: it is no folder, holds something else, or a demo is running in it.
        """
        check_folder_target(self.home)
        mark = self.home / _MARK
        ours = self.reserved or mark.is_file() or not self.home.exists()
        if not ours and any(self.home.iterdir()):
            raise UsageError(f"{self.home}: holds something that is no demo; give another --home")
        self.home.mkdir(parents=True, exist_ok=True)
        with mark.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{self.home}: a demo is running in it") from None
            if anew:
                self._clear()
            yield self._state()

    def _state(self) -> State:
        if self.figures.is_file():
            return "done"
        return "resumes" if self.data.is_dir() else "begins"

    def _clear(self) -> None:
        self.figures.unlink(missing_ok=True)
        for path in self.home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _MARK:
                path.unlink()


def _without_ray() -> bool:
    return engine_variable("MIRNET_RAY_ADDRESS") == "in-process"
