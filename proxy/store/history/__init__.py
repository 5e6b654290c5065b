"""What there is much of: requests, events, checks and samples.

`entries` are its tables and how they are written, `rollups` what requests add up to; `retention` deletes. It is read by
`history`, whose questions are `pages` of single rows, `aggregates` of many and `counts`, and whose `reader` asks them;
`percentiles` come from counts below bounds.
"""
