"""One answer for identical requests: shared while it is produced, kept for a while after."""
