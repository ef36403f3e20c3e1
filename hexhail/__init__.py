"""What the services share. Nothing in this package decides anything."""

__version__ = "0.1.0"
