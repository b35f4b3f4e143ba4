"""Usage of this node, under MLflow's system metric names."""

from __future__ import annotations

import psutil
import torch

from mirnet.results import NodeUsage

_MEGA = 1e6


class NodeMonitor:
    """Means of processor and network since the last call; other values at this moment."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()  # the first call only sets the start

    def read(self, epoch: int) -> NodeUsage:
        """Usage of this node during an epoch that ends now."""
        memory, network = psutil.virtual_memory(), psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGA,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": psutil.disk_usage("/").percent,
            "network_receive_megabytes": (network.bytes_recv - self._network.bytes_recv) / _MEGA,
            "network_transmit_megabytes": (network.bytes_sent - self._network.bytes_sent) / _MEGA,
        }
        self._network = network
        return NodeUsage(epoch=epoch, node=self._node, values=values | _gpus())


def _gpus() -> dict[str, float]:
    values = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        values[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / _MEGA
        values[f"gpu_{number}_memory_usage_percentage"] = 100 * (total - free) / total
    return values
