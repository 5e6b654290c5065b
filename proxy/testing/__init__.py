"""Parts for testing a gateway without models or sockets, shipped with it: stand-ins with the real interfaces.

Nothing is patched. `python -m quiver.proxy.testing` runs a whole gateway through seeded random schedules of faults.
"""

from .network import Answer, Link, SimulatedAcceptor, SimulatedNetwork
from .parts import RecordingDownstream, ScriptedBackend, fixed_world, request
from .pipe import Direction, Fault

__all__ = [
    "Answer",
    "Direction",
    "Fault",
    "Link",
    "RecordingDownstream",
    "ScriptedBackend",
    "SimulatedAcceptor",
    "SimulatedNetwork",
    "fixed_world",
    "request",
]
