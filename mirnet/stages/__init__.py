"""The composition root: the stages as plain functions, typed input to typed result.

The Prefect flows and the command line both call them. Each stage writes its result to
``STAGE.json`` in the reports folder, which the next stage reads.
"""

from mirnet.stages.data import (
    blocking_message as blocking_message,
)
from mirnet.stages.data import (
    check_version as check_version,
)
from mirnet.stages.data import (
    publish_validation as publish_validation,
)
from mirnet.stages.data import (
    validate as validate,
)
from mirnet.stages.enhancing import (
    enhance as enhance,
)
from mirnet.stages.enhancing import (
    pin as pin,
)
from mirnet.stages.enhancing import (
    plan_enhancement as plan_enhancement,
)
from mirnet.stages.enhancing import (
    read_contact as read_contact,
)
from mirnet.stages.evaluating import evaluate as evaluate
from mirnet.stages.models import champion as champion
from mirnet.stages.models import open_enhancer as open_enhancer
from mirnet.stages.promotion import (
    CHALLENGER as CHALLENGER,
)
from mirnet.stages.promotion import (
    check_champion as check_champion,
)
from mirnet.stages.promotion import (
    promote as promote,
)
from mirnet.stages.promotion import (
    resolve_approval as resolve_approval,
)
from mirnet.stages.promotion import (
    undo_promotion as undo_promotion,
)
from mirnet.stages.run import (
    RunConfig as RunConfig,
)
from mirnet.stages.run import (
    check_services as check_services,
)
from mirnet.stages.run import (
    load_run_config as load_run_config,
)
from mirnet.stages.training import train as train
