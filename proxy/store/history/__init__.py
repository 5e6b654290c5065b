"""What there is much of: requests, events, checks and samples.

`entries` are its tables and how they are written, requests as `rows`; `rollups` is what requests add up to, and `retention`
deletes. It is read by `history`, whose questions are `pages` of single rows, `aggregates` of many and `counts`, and whose
`reader` asks them; `percentiles` come from counts below bounds.
"""
