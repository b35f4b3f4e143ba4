"""The registries of the tracking tests, for the commands that show them."""

from tests.tracking.conftest import store, three_versions, version, versions

__all__ = ["store", "three_versions", "version", "versions"]
