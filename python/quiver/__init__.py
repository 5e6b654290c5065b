"""Quiver: one OpenAI-compatible address for every model server you run, with an engine of its own.

`quiver.schemas` holds the types, `quiver.proxy` the Trio gateway, `quiver.admin` the command line and the control plane.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("quiver-gateway")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"
