"""The composition root: the stages as plain functions, typed input to typed result.

The Prefect flows and the command line both call them. Each stage writes its result to
``STAGE.json`` in the reports folder, which the next stage reads.
"""

from mirnet.stages.comparing import compare_models as compare_models
from mirnet.stages.data import (
    blocking_message as blocking_message,
    check_version as check_version,
    publish_validation as publish_validation,
    validate as validate,
)
from mirnet.stages.enhancing import (
    enhance as enhance,
    pin as pin,
    plan_enhancement as plan_enhancement,
    read_contact as read_contact,
    usual_model as usual_model,
)
from mirnet.stages.evaluating import evaluate as evaluate
from mirnet.stages.models import (
    champion as champion,
    champion_or_base as champion_or_base,
    open_enhancer as open_enhancer,
    open_model as open_model,
)
from mirnet.stages.promotion import (
    CHALLENGER as CHALLENGER,
    check_champion as check_champion,
    promote as promote,
    resolve_approval as resolve_approval,
    undo_promotion as undo_promotion,
)
from mirnet.stages.reproducing import reproduce as reproduce
from mirnet.stages.run import (
    RunConfig as RunConfig,
    check_services as check_services,
    load_run_config as load_run_config,
)
from mirnet.stages.searching import search as search
from mirnet.stages.training import train as train
