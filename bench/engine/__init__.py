"""How fast does the engine read prompts and write answers, alone or next to llama.cpp? `quiver bench engine`, as it is.

The measuring itself is in the package (`admin/measure`), for those who have only that; here is what it measures with.
"""

import subprocess
import sys


def main(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "quiver.admin", "bench", "engine", *arguments]).returncode
