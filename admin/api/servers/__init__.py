"""Servers over the admin API: `routes` take requests, `registration` says what they ask for, `changes` and `trials` do it, and
`listing` and `report` tell how servers stand.
"""
