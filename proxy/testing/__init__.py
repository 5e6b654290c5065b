"""Parts for testing a gateway without models or sockets, shipped with it: stand-ins with the real interfaces, nothing patched."""

from .parts import RecordingDownstream, ScriptedBackend, fixed_world, request

__all__ = ["RecordingDownstream", "ScriptedBackend", "fixed_world", "request"]
