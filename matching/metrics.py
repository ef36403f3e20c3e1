"""What has this process done so far? Counters in memory, for whoever exports them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hexhail.kernel.counters import counted_by, counter
from matching.ranking import PolicyFailure
from matching.reconciling import Repair


@dataclass(slots=True)
class MatchingMetrics:
    """Counters of one city; they only grow."""

    rankings: int = counter("Times that candidates were ranked.")
    policy_failures: Counter[PolicyFailure] = field(
        default_factory=Counter,
        metadata=counted_by("failure", PolicyFailure, "Times that the fallback ranked because the city's policy failed."),
    )
    events_told: int = counter("Events written to the city's stream, repeats included.")
    relay_rounds: int = counter("Rounds of the relay, each of all that was committed since the one before.")
    stream_epochs: int = counter("Times that the stream of events began anew.")
    repairs: Counter[Repair] = field(
        default_factory=Counter, metadata=counted_by("kind", Repair, "What a crash had left behind, and was repaired.")
    )
    windows: int = counter("Windows of a batched city that were decided here.")
    window_offers: int = counter("Offers that windows made.")
    window_waits: int = counter("Times that a window left a ride waiting for the next.")
