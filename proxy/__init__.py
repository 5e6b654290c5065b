"""The data plane: Trio tasks that carry a request from a client to a model and the reply back.

A request walks these files in order: `listener` accepts, `session` parses, `exchange` decides and accounts, `inference` asks
`routing` for backends from the `registry`, `remote/` (a server elsewhere), `tunnel/` (one that has joined) or `local/` (the
engine) answers, `reply` writes downstream. `gateway` holds the parts and `server` the scopes they run in; `telemetry/` tells
what happens and `store/` keeps it; `handover` and `inference_app` are the border to the control plane.
Imports `quiver.schemas`, never `quiver.admin`; only `native` imports the extension.
"""
