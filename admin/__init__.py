"""The control plane: the command line, the configuration loader, and the pages beside the inference API.

Imports `quiver.proxy` and `quiver.schemas`; nothing imports it.
"""
