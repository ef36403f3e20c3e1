"""Which service is which: name -> how it is made from its runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import location.__main__
import matching.__main__
import pricing.__main__
import routing.__main__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.rpc.service import Service

RUNNERS: Mapping[str, Service] = {
    service.name: service
    for service in (location.__main__.SERVICE, matching.__main__.SERVICE, pricing.__main__.SERVICE, routing.__main__.SERVICE)
}
