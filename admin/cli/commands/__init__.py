"""The commands that have a file of their own: options, one call, and what is printed of its answer."""
