"""From recordings to a store: read, check, list what is skipped, write."""
