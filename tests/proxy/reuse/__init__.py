"""One answer for identical requests."""
