"""The command line: `app` gathers the `commands/`; beside it lies what they share, from the gateway's address to how times are
written.
"""

from .app import main as main
