"""Params: the numbers of a run, from a YAML file or a preset, one section per stage."""

from mirnet.params.reading import load_params, preset_names
from mirnet.params.sections import (
    EnhanceParams,
    EvaluateParams,
    LossName,
    ModelParams,
    Params,
    PatchStage,
    Precision,
    PromoteParams,
    Section,
    TrainParams,
    TrainPrecision,
    ValidateParams,
)

__all__ = [
    "EnhanceParams",
    "EvaluateParams",
    "LossName",
    "ModelParams",
    "Params",
    "PatchStage",
    "Precision",
    "PromoteParams",
    "Section",
    "TrainParams",
    "TrainPrecision",
    "ValidateParams",
    "load_params",
    "preset_names",
]
