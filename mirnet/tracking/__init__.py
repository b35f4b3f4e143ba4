"""MLflow: runs, models and the registry, always through an explicit client.

SQLite in the workspace unless ``MIRNET_TRACKING_URI`` names a server. No global run, no global
tracking URI: every call names its store.
"""

from mirnet.tracking.client import check_tracking, connect
from mirnet.tracking.epochs import EpochLogger
from mirnet.tracking.runs import TrackedRun, track

__all__ = ["EpochLogger", "TrackedRun", "check_tracking", "connect", "track"]
