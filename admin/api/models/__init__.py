"""The built-in engine's models over the admin API: `routes` take requests, `report` tells how a model stands."""
