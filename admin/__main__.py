"""`python -m quiver.admin` is `quiver`."""

from .cli import main

main()
