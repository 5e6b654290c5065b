"""Every operation of the API as one table, in the order in which the API page shows them."""

from .history import HISTORY
from .inference import INFERENCE
from .keys import KEYS
from .models import MODELS
from .operation import EVERY_STATUS as EVERY_STATUS
from .operation import Operation as Operation
from .servers import SERVERS
from .service import SERVICE

OPERATIONS: tuple[Operation, ...] = (*INFERENCE, *SERVICE, *SERVERS, *MODELS, *KEYS, *HISTORY)
