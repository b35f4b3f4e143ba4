"""Operations with fast implementations, selected by device, dtype and mode."""

from mirnet.models.ops.cpu_gradients import PReLU, blur_down, global_mean, max_and_mean
from mirnet.models.ops.fused import conv_act, materialized

__all__ = ["PReLU", "blur_down", "conv_act", "global_mean", "materialized", "max_and_mean"]
