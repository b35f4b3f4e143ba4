"""MIRNet low-light image enhancement as a pipeline. Importing this loads no engine."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mirnet-pipeline")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"
