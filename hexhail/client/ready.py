"""Is the city open? For whoever has just started its services, and must not send people to closed doors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tenacity

from hexhail.client.calling import is_passing
from hexhail.client.channels import Channels
from hexhail.client.operator import OperatorApp
from hexhail.kernel.errors import DomainError, Reason

if TYPE_CHECKING:
    from hexhail.client.channels import Addresses


async def until_open(addresses: Addresses, city_id: str, operator_token: str, within_s: float = 30.0) -> None:
    """Returns once rides can be priced and requested in this city: surge is known, and matching answers.

    Asks over connections of its own, so that nobody's counts are touched. Raises DomainError or RpcError, the last one, where
    that takes longer than `within_s`, and at once where waiting is of no use (an unknown city, a bad token).
    """
    async with Channels(addresses) as channels:
        desk = OperatorApp(channels, city_id, "doorkeeper", operator_token)

        async def ask() -> None:
            await desk.surge(city_id)
            try:
                await desk.get_driver("nobody")
            except DomainError as error:
                if error.reason is not Reason.DRIVER_NOT_FOUND:
                    raise

        await tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_passing),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(within_s),
            reraise=True,
        )(ask)
