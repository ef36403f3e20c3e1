"""A process with stores of its own, for tests to end: opens them, says where they are, and waits for ever."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hexhail.embedded import embedded_stores


async def main(data_dir: Path) -> None:
    async with embedded_stores(data_dir, durable=False) as stores:
        print("READY", stores.redis_url, stores.postgres_dsn, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
