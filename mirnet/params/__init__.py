"""Params: the numbers of a run, from a YAML file or a preset, one section per stage."""

from mirnet.params.reading import load_params as load_params
from mirnet.params.reading import preset_names as preset_names
from mirnet.params.sections import (
    EnhanceParams as EnhanceParams,
)
from mirnet.params.sections import (
    EvaluateParams as EvaluateParams,
)
from mirnet.params.sections import (
    LossName as LossName,
)
from mirnet.params.sections import (
    ModelParams as ModelParams,
)
from mirnet.params.sections import (
    Params as Params,
)
from mirnet.params.sections import (
    PatchStage as PatchStage,
)
from mirnet.params.sections import (
    Precision as Precision,
)
from mirnet.params.sections import (
    PromoteParams as PromoteParams,
)
from mirnet.params.sections import (
    Section as Section,
)
from mirnet.params.sections import (
    TrainParams as TrainParams,
)
from mirnet.params.sections import (
    TrainPrecision as TrainPrecision,
)
from mirnet.params.sections import (
    ValidateParams as ValidateParams,
)
