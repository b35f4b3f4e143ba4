"""Networks by name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from mirnet.errors import UsageError
from mirnet.models.mirnet import MIRNet
from mirnet.models.mirnet_v2 import MIRNetV2
from mirnet.params import ModelParams


class Architecture(BaseModel):
    """All that it takes to build a network without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["mirnet", "mirnet-v2"] = Field(description="family")
    n_feat: int = Field(ge=8, le=256, description="channels at full resolution")
    num_rrg: int = Field(ge=1, le=8, description="recursive residual groups")
    num_msrb: int = Field(ge=1, le=8, description="multi-scale blocks per group")

    def build(self) -> MIRNet | MIRNetV2:
        """The network, freshly initialised, float32 on CPU.

        Raises:
            UsageError: channels that the grouped convolutions of MIRNet-v2 do not divide.
        """
        sizes = {"n_feat": self.n_feat, "num_rrg": self.num_rrg, "num_msrb": self.num_msrb}
        if self.network == "mirnet":
            return MIRNet(**sizes)
        if self.n_feat % 16:
            raise UsageError(f"model.n_feat: mirnet-v2 needs a multiple of 16 (got {self.n_feat})")
        return MIRNetV2(**sizes)


NAMED = {
    "mirnet": Architecture(network="mirnet", n_feat=64, num_rrg=3, num_msrb=2),
    "mirnet-s": Architecture(network="mirnet", n_feat=32, num_rrg=2, num_msrb=1),
    "mirnet-xs": Architecture(network="mirnet", n_feat=16, num_rrg=1, num_msrb=1),
    "mirnet-v2": Architecture(network="mirnet-v2", n_feat=80, num_rrg=4, num_msrb=2),
}


def names() -> tuple[str, ...]:
    """Names that ``model.name`` takes."""
    return tuple(NAMED)


def architecture(params: ModelParams) -> Architecture:
    """The named architecture with the sizes that the params set."""
    changes = params.model_dump(include={"n_feat", "num_rrg", "num_msrb"}, exclude_none=True)
    return Architecture.model_validate(NAMED[params.name].model_dump() | changes)


def architecture_of(model: nn.Module) -> Architecture:
    """The architecture of a network that this package built."""
    assert isinstance(model, MIRNet | MIRNetV2), f"not one of our networks: {type(model)}"
    return Architecture(
        network="mirnet" if isinstance(model, MIRNet) else "mirnet-v2",
        n_feat=model.conv_in.out_channels,
        num_rrg=len(model.groups),
        num_msrb=len(model.groups[0].blocks),  # type: ignore[arg-type]
    )


def build(params: ModelParams) -> MIRNet | MIRNetV2:
    """The network that ``params`` name, freshly initialised, float32 on CPU."""
    return architecture(params).build()


def num_parameters(model: nn.Module) -> int:
    """Parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
