"""The control plane over HTTP: health, status, metrics and the API page (`app`), and the admin API behind its `lock`.

`administration` gathers the admin API's routes, one file or folder a noun; `operations/` describes each of them, and `openapi`
is made of those. `bodies`, `query`, `paging`, `versions` and `answers` are what routes have in common.
"""
