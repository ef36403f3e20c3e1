"""The process that assigns windows for another: `python -m matching.assignment_process`.

On its standard input come windows, whole numbers of 64 bits: how many pairs, rides and drivers; then the columns of the pairs,
then what the waits cost. On its standard output goes, for each, what the assignment costs and the driver of each ride. It ends
with its input. It imports as little as it can.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import numpy as np

from matching.assignment import Pairs, assign

if TYPE_CHECKING:
    from typing import BinaryIO

    from hexhail.kernel.units import Ints

NUMBER: Final = np.dtype("<i8")
HEADER: Final = 3


def packed(pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> bytes:
    """A window as this process reads it."""
    header = np.array([len(pairs), len(waiting_milli), n_drivers])
    return np.concatenate((header, pairs.ride, pairs.driver, pairs.cost_milli, waiting_milli)).astype(NUMBER).tobytes()


def serve(windows: BinaryIO, answers: BinaryIO) -> None:
    """Assigns window after window until there are no more."""
    while header := windows.read(HEADER * NUMBER.itemsize):
        n_pairs, n_rides, n_drivers = np.frombuffer(header, NUMBER).tolist()
        numbers = np.frombuffer(windows.read((3 * n_pairs + n_rides) * NUMBER.itemsize), NUMBER).astype(np.int64)
        ride, driver, cost_milli = numbers[: 3 * n_pairs].reshape(3, n_pairs)
        found = assign(Pairs(ride, driver, cost_milli), numbers[3 * n_pairs :], n_drivers)
        answers.write(np.concatenate(([found.cost_milli], found.driver)).astype(NUMBER).tobytes())
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
