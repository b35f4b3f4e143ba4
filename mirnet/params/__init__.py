"""Params: the numbers of a run, from a YAML file or a preset, one section per stage."""

from mirnet.params.reading import (
    load_params as load_params,
    params_from as params_from,
    params_of_run as params_of_run,
    preset_names as preset_names,
    with_enhance_options as with_enhance_options,
)
from mirnet.params.recipe import (
    PatchStage as PatchStage,
    Precision as Precision,
    Section as Section,
    TrainParams as TrainParams,
    TrainPrecision as TrainPrecision,
)
from mirnet.params.sections import (
    EnhanceParams as EnhanceParams,
    EvaluateParams as EvaluateParams,
    ModelParams as ModelParams,
    Params as Params,
    PromoteParams as PromoteParams,
    ValidateParams as ValidateParams,
    phase_loss as phase_loss,
)
from mirnet.params.taste import (
    Taste as Taste,
    taste_of as taste_of,
)
