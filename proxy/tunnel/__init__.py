"""The tunnel of `quiver join`: a server that the gateway cannot connect to dials out to it, and is served through that.

`frames` and `multiplexer` are the protocol, without I/O; `websocket` and `link` carry it; `joins`, `joined` and `door` are
the gateway's end, `joiner` and `local` the other.
"""
