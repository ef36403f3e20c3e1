"""How far has a city's log of events been told, and what is told next? The relay's decisions. Pure.

Transactions are numbered as they begin and become visible as they end, so no number says how far a reader has come: behind it,
rows appear later. A snapshot of PostgreSQL says it exactly: which transactions had ended when it was taken. So events are told in
rounds: a round takes the events that its snapshot sees and the snapshot of the round before did not, by their position. Every
transaction that commits is in one round, the first whose snapshot sees it.

That is the order of each ride, and of each driver. Two changes of one of them never overlap: the later one reads, or waits for,
what the earlier one committed. So a snapshot that sees the later one sees the earlier one too, and within a round the earlier one
has the lower position.

Source: our choice; decision 29.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence


class EpochReason(StrEnum):
    """Why a stream begins anew."""

    FIRST = "FIRST"
    """Nothing was ever told."""
    STREAM_LOST = "STREAM_LOST"
    """The last entry that was written is not there any more: the stream was wiped, or lost its tail."""
    LOG_REPLACED = "LOG_REPLACED"
    """The database has had fewer transactions than the log was told up to: it is another one."""


@dataclass(frozen=True, slots=True)
class RelayParams:
    """How a city's events are told."""

    stream_length: int = 100_000
    """The stream keeps about so many entries."""
    replay_s: float = 3_600.0
    """A new epoch begins with what happened this long ago."""
    batch: int = 256
    """So many events are written at once."""
    poll_s: float = 0.2
    """How soon the commits of other processes are seen; those of one's own are seen at once."""
    pause_s: float = 0.05
    """Between two rounds, so that many commits share one."""
    lease_s: float = 5.0
    """When a relay has fallen silent for this long, another takes its place."""

    def __post_init__(self) -> None:
        """Raises ValueError where nothing would be told, or at once be forgotten."""
        for name in ("replay_s", "poll_s", "pause_s", "lease_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if not 1 <= self.batch <= self.stream_length:
            raise ValueError("batch must be at least 1, and stream_length no less than it")


NOTHING_SEEN = "1:1:"
"""A snapshot, as PostgreSQL writes it, from before all transactions."""


@dataclass(frozen=True, slots=True)
class Telling:
    """How far a city's log has been told.

    epoch : names this telling; empty before any
    from_at_ms : events of before this time were not told in this epoch
    seen : every event that this snapshot sees has been told
    seeing : the round tells what this snapshot sees besides; empty between rounds
    position : within a round, of the last event told
    entry_id : of an entry of the stream, written last or nearly so; empty before any
    """

    epoch: str = ""
    from_at_ms: int = 0
    seen: str = NOTHING_SEEN
    seeing: str = ""
    position: int = 0
    entry_id: str = ""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the log, as it is told."""

    position: int
    kind: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """The next events of a round, by position.

    seeing : the round's snapshot; empty where there is nothing to tell, and so no round
    last : nothing of the round is behind this page
    """

    events: Sequence[LoggedEvent]
    seeing: str
    last: bool


def begun(epoch: str, now_ms: int, params: RelayParams) -> Telling:
    """A new epoch, of which nothing is told yet."""
    return Telling(epoch=epoch, from_at_ms=max(0, now_ms - round(params.replay_s * MS_PER_S)))


def why_anew(progress: Telling, now: str) -> EpochReason | None:
    """Must this telling begin anew, whatever the stream holds?

    now : a snapshot of the present
    """
    if not progress.epoch:
        return EpochReason.FIRST
    if max(_end(progress.seen), _end(progress.seeing or NOTHING_SEEN)) > _end(now):
        return EpochReason.LOG_REPLACED
    return None


def told(progress: Telling, page: Page, entry_id: str) -> Telling:
    """How far the log has been told once a page is in the stream, whose last entry is `entry_id`."""
    if page.last:
        return replace(progress, seen=page.seeing, seeing="", position=0, entry_id=entry_id)
    return replace(progress, seeing=page.seeing, position=page.events[-1].position, entry_id=entry_id)


def _end(snapshot: str) -> int:
    """The number from which on there was no transaction yet."""
    return int(snapshot.split(":")[1])
