"""What a plain install leaves out: looked for before it is needed, told with its extra's name."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from mirnet.errors import ExtraMissing


def need(extra: str, *modules: str) -> None:
    """Look for the modules of an extra without the cost of importing them.

    Raises:
        ExtraMissing: names the modules that are not there, and the command that installs them.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ExtraMissing(", ".join(missing), extra=extra)


def program(extra: str, name: str) -> str:
    """The path of a program that a package of an extra brings, else of one on the search path.

    Raises:
        ExtraMissing: there is none; names the command that installs it.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ExtraMissing(f"the program {name}", extra=extra)
    return found
