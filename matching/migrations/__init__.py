"""The schema of matching, version by version."""
