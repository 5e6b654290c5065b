"""What outlives a restart: one SQLite file in the data folder, and the export of its registrations beside it.

`store` is what the gateway sees. `folder` is where the files lie and who may use them, `opening` opens, checks and migrates,
`recovery` rebuilds what was damaged, from what `salvage` can read. `registry` are the rows that must never be lost, `export`
their copy as JSON; `writer` and `history/` are the rows there are many of. `copies`, `imports` and `inspection` are for a
folder that no gateway uses.
"""
