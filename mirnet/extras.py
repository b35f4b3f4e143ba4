"""Optional dependencies: checked before use; the error names the extra."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from mirnet.errors import ExtraMissing


def need(extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed, without importing them.

    Raises:
        ExtraMissing: names the missing modules and the command that installs them.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ExtraMissing(", ".join(missing), extra=extra)


def program(extra: str, name: str) -> str:
    """The path of a program from a package of an extra, else from the search path.

    Raises:
        ExtraMissing: there is none; names the command that installs it.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ExtraMissing(f"the program {name}", extra=extra)
    return found
