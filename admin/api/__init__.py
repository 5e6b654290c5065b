"""The control plane over HTTP: the admin API, health, metrics and the API page."""
