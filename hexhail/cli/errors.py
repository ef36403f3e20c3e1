"""What can go wrong with service processes."""

from __future__ import annotations


class ServiceError(Exception):
    """A service process does not come up; one line says why."""
