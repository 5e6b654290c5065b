"""How Quiver logs: structlog, one event a line, rendered and written by a thread of its own.

A call builds the event and puts it on a bounded queue (`logger`, `pipeline`); the writer takes secrets out (`redactor`),
renders (`rendering`) and gives the lines to stderr (`stream`), a file (`file`) and a memory of the last ones (`ring`), from
which `search` and `followers` serve. Finished requests come in batches, by a way of their own (`requests`).
"""
