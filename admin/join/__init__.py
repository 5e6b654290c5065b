"""`quiver join` around its joiner: the owner's wishes, by keys, signals and files, and what the owner is shown."""
