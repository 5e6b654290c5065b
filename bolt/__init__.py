"""The workshop of `bolt`, the model inside the package: facts in, `python/quiver/models/bolt.gguf` out.

Nothing here is installed or imported by the product; it runs in its own environment (`bolt/make.sh`).
"""
