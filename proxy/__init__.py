"""The data plane: Trio tasks that carry a request from a client to a model and the reply back.

A request walks these files in order: `listener` accepts, `session` parses, `exchange` decides and accounts, `routing` picks
a backend from the `registry`, `upstream` (a remote server) or `builtin` (the engine) answers, `reply` writes downstream.
`server` owns the scopes they run in. Imports `quiver.schemas`, never `quiver.admin`; only `native` imports the extension.
"""
