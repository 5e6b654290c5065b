"""What the gateway tells of itself, and nothing that decides: a `record` of each request, which `accounting` hands on; the
`journal` of changes; `metrics` and their page (`figures`, `exposition`, `port`); `tracing`; how much is logged (`levels`);
and a look at itself now and then (`upkeep`, `loop_lag`).
"""
