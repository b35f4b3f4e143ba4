"""Autocast and compilation, if the machine supports them."""

from __future__ import annotations

import logging

import torch

from mirnet.hardware import find_compiler, resolve_dtype
from mirnet.models import Network
from mirnet.params import Params, TrainPrecision

logger = logging.getLogger(__name__)


def autocast(precision: TrainPrecision, device: torch.device) -> torch.autocast:
    """Autocast to the type of a precision; no effect for float32."""
    dtype = resolve_dtype(precision, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def precision_of(params: Params) -> TrainPrecision:
    """``train.precision``, as far as the network allows.

    Raises:
        UsageError: a lower one is asked for; names the network.
    """
    return params.model.config.architecture.precision(params.train.precision)


def compile_blocks(model: Network) -> None:
    """Compile each repeated block separately, for fixed shapes.

    Blocks are alike, so one compilation serves all; automatic dynamic shapes fail in inductor.
    Without a C++ compiler the model stays eager, with one warning.
    """
    if find_compiler() is None:
        logger.warning("train.compile: no C++ compiler here, training goes on without")
        return
    for block in model.repeated_blocks():
        block.compile(dynamic=False)
