"""Valkey and PostgreSQL as child processes, for whoever has given no address of running ones."""

from hexhail.embedded.errors import StoreError
from hexhail.embedded.postgres import check_postgres, embedded_postgres
from hexhail.embedded.stores import Stores, embedded_stores
from hexhail.embedded.valkey import check_valkey, embedded_valkey

__all__ = [
    "StoreError",
    "Stores",
    "check_postgres",
    "check_valkey",
    "embedded_postgres",
    "embedded_stores",
    "embedded_valkey",
]
