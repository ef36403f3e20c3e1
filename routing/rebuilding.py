"""A router of newer traffic, made while the process goes on answering."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from routing.road import RoadRouter
from routing.tables import drop_tables, has_tables
from routing.tables_process import UNFIT, packed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from routing.graph import RoadGraph
    from routing.joining import JoinedRouter, RoadParams

KEPT: Final = 3
"""Past states whose tables stay: whoever lags behind may still ask for the last but one."""


class RebuildError(Exception):
    """The process that makes tables has failed; the text is its own account of it."""


async def with_slowness_beside(
    base: JoinedRouter, slowness: npt.NDArray[np.floating], params: RoadParams | None = None
) -> JoinedRouter:
    """What `base.with_slowness` gives, while this process goes on answering.

    Tables are made by a process of its own, since the work would hold up other threads; here they are only mapped.
    Tables of older states are removed. A hierarchy takes its traffic in a thread, which does let others run. So do tables where
    the router has no folder for them; those stop everybody meanwhile.

    Raises ValueError as `with_slowness`; RebuildError and OSError where the tables cannot be made.
    """
    if isinstance(base, RoadRouter) and base.tables_dir is not None:
        slowed = base.free_flow.slowed(slowness)
        await make_tables_beside(slowed, base.tables_dir)
        await asyncio.to_thread(drop_tables, (base.free_flow, slowed), base.tables_dir, KEPT)
    return await asyncio.to_thread(base.with_slowness, slowness, params)


async def make_tables_beside(graph: RoadGraph, cache_dir: Path) -> None:
    """Puts the tables of a graph into the cache folder, unless they are there, by a process of its own.

    It ends with its work even if this one is killed, and is killed where this is cancelled. Raises ValueError where the graph has
    none (too large, ways too long); RebuildError where the process fails.
    """
    if await asyncio.to_thread(has_tables, graph, cache_dir):
        return
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "routing.tables_process", str(cache_dir), stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe
    )
    try:
        _, said = await process.communicate(packed(graph))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        account = said.decode(errors="replace").strip()
        if process.returncode == UNFIT:
            raise ValueError(account)
        raise RebuildError(f"making tables ended with exit code {process.returncode}: {account[-2000:]}")
