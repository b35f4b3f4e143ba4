from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from mirnet.hardware import _remove_broken_libraries


@pytest.mark.skipif(sys.platform != "linux", reason="of ELF files")
@pytest.mark.parametrize(("age_s", "stays"), [(0.0, True), (1e6, False), (-1e6, False)])
def test_a_broken_library_goes_unless_it_may_be_being_linked(
    age_s: float, stays: bool, tmp_path: Path
) -> None:
    """Whatever the clock was when it was written."""
    library = tmp_path / "a.so"
    library.write_bytes(b"\x7fELF")
    os.utime(library, (time.time() - age_s,) * 2)
    _remove_broken_libraries(tmp_path)
    assert library.exists() == stays
