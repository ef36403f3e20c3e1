"""What does HEXHAIL_REDIS_URL ask for: one node, or a cluster?"""

from __future__ import annotations

from typing import Final, TypeAlias
from urllib.parse import urlsplit

_CLUSTER: Final = "+cluster"

Address: TypeAlias = tuple[str, int]
"""Host and port of a node."""


def cluster_seeds(redis_url: str) -> tuple[str, ...]:
    """The nodes by which a cluster is found, as URLs of single nodes; () where the URL names a single node.

    A cluster is `redis+cluster://[user:password@]host[:port][,host[:port]...][?options]`, or `rediss+cluster://` for TLS: one of
    its nodes is enough, several outlive the loss of one. A single node is `redis://`, `rediss://` or `unix://`. Raises ValueError
    for a cluster without a host, or with a database: a cluster has only one.
    """
    parts = urlsplit(redis_url)
    scheme = parts.scheme.removesuffix(_CLUSTER)
    if scheme == parts.scheme:
        return ()
    user, at, hosts = parts.netloc.rpartition("@")
    seeds = hosts.split(",")
    if scheme not in ("redis", "rediss") or not all(seeds):
        raise ValueError("a cluster's address is redis+cluster://host:port,host:port")
    if parts.path not in ("", "/", "/0") or "db=" in parts.query:
        raise ValueError("a cluster has one database: its address names none")
    return tuple(parts._replace(scheme=scheme, netloc=f"{user}{at}{seed}", path="").geturl() for seed in seeds)


def at_node(seed: str, address: Address) -> str:
    """The URL of another node of the seed's cluster, which asks for the same user and options."""
    parts = urlsplit(seed)
    user, at, _ = parts.netloc.rpartition("@")
    host, port = address
    return parts._replace(netloc=f"{user}{at}{f'[{host}]' if ':' in host else host}:{port}").geturl()


def address_of(seed: str) -> Address:
    """Host and port of a seed. Raises ValueError for a port that is none."""
    parts = urlsplit(seed)
    return parts.hostname or "localhost", parts.port or 6379
