"""`python -m quiver.admin` is `quiver`."""

from .cli.app import main

main()
