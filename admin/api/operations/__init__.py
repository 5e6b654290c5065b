"""Every operation of the API as one table, in the order in which the API page shows them."""

from .configuration import CONFIGURATION
from .history import HISTORY
from .inference import INFERENCE
from .join import JOIN
from .keys import KEYS
from .logs import LOGS
from .models import MODELS
from .operation import EVERY_STATUS as EVERY_STATUS
from .operation import Operation as Operation
from .servers import SERVERS
from .service import SERVICE

OPERATIONS: tuple[Operation, ...] = (
    *INFERENCE,
    *SERVICE,
    *SERVERS,
    *JOIN,
    *MODELS,
    *KEYS,
    *HISTORY,
    *LOGS,
    *CONFIGURATION,
)
