"""Client keys over the admin API: `routes` take requests, `issuing` makes changes, `listing` and `report` tell how keys
stand.
"""
