"""The `hexhail` command: the composition root, the one place that may import everything."""

from hexhail.cli.app import main

__all__ = ["main"]
