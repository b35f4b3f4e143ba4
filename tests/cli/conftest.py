"""The registries of the tracking tests, for the commands that show them."""

from tests.tracking.conftest import store, version, versions

__all__ = ["store", "version", "versions"]
