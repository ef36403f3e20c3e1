"""What does HEXHAIL_REDIS_URL ask for: one node, or a cluster?"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

_CLUSTER: Final = "+cluster"


def cluster_seeds(redis_url: str) -> tuple[str, ...]:
    """The nodes by which a cluster is found, as URLs of single nodes; () where the URL names a single node.

    A cluster is `redis+cluster://[user:password@]host:port[,host:port...][?options]`, or `rediss+cluster://` for TLS: one of its
    nodes is enough, several outlive the loss of one. A single node is `redis://`, `rediss://` or `unix://`. Raises ValueError for
    a cluster without a host, or with a database: a cluster has only one.
    """
    parts = urlsplit(redis_url)
    if not parts.scheme.endswith(_CLUSTER):
        return ()
    user, at, hosts = parts.netloc.rpartition("@")
    seeds = hosts.split(",")
    if not all(seeds):
        raise ValueError("a cluster's address is redis+cluster://host:port,host:port")
    if parts.path not in ("", "/", "/0"):
        raise ValueError(f"a cluster has one database, and no {parts.path}")
    scheme = parts.scheme.removesuffix(_CLUSTER)
    return tuple(parts._replace(scheme=scheme, netloc=f"{user}{at}{seed}", path="").geturl() for seed in seeds)
