"""The nodes of a cluster, and whether all of them can reach the checkpoint store."""

from __future__ import annotations

from uuid import uuid4

import pyarrow
import ray
import ray.exceptions
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mirnet.errors import UsageError, first_line, last_line
from mirnet.storage.arrow import storage_errors, uri_of

_PATIENCE_S = 60.0


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Keeps an actor on the node of the driver, so that it does not die with another node."""
    return _on(ray.get_runtime_context().get_node_id())


def check_shared(filesystem: fs.FileSystem, path: str) -> None:
    """Check that every node can read a file that this one writes to the checkpoint store.

    Raises:
        UsageError: a node cannot read it; names the node, the store and the reason.
        StorageError: this node cannot write there.
    """
    nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
    if len(nodes) < 2:
        return
    probe = f"{path}/.probe-{uuid4().hex}"
    with storage_errors(path):
        filesystem.create_dir(path, recursive=True)
        with filesystem.open_output_stream(probe) as stream:
            stream.write(b"probe")
    try:
        answers = {
            address: _sees.options(scheduling_strategy=_on(node)).remote(filesystem, probe)
            for node, address in nodes.items()
        }
        for address, answer in answers.items():
            if reason := _reason(answer):
                raise UsageError(
                    f"node {address} does not see the checkpoint store {uri_of(filesystem, path)}: "
                    f"{reason}. Set MIRNET_STORAGE_URI to s3://bucket/prefix or to a folder that "
                    "all nodes share"
                )
    finally:
        with storage_errors(path):
            filesystem.delete_file(probe)


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _sees(filesystem: fs.FileSystem, path: str) -> str | None:
    """None, or why this node cannot read the file."""
    try:
        with filesystem.open_input_stream(path) as stream:
            stream.read()
    except (OSError, pyarrow.ArrowException) as error:
        return first_line(error)
    return None


def _reason(answer: ray.ObjectRef) -> str | None:
    try:
        reason: str | None = ray.get(answer, timeout=_PATIENCE_S)
    except ray.exceptions.GetTimeoutError:
        return f"no answer in {_PATIENCE_S:.0f} s"
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.RayTaskError) as error:
        return last_line(str(error))
    except ray.exceptions.RayError:
        return None  # the node is leaving: training continues without it
    return reason
