#!/bin/sh
# Trains bolt from nothing and writes python/quiver/models/bolt.gguf and bolt/evaluation.json.
# Makes its own environment in bolt/.venv; arguments go to `python -m bolt.make` (for example --steps 300).
set -eu
cd "$(dirname "$0")/.."
environment=bolt/.venv
if [ ! -x "$environment/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
fi
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r bolt/requirements.txt
exec "$environment/bin/python" -m bolt.make "$@"
