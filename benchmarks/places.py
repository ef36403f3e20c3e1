"""Where are the drivers of a benchmark? Homes spread like a real fleet, and a few metres about them from fix to fix."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel.geo import Place, Plane
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import to_e7

if TYPE_CHECKING:
    from pathlib import Path

    from hexhail.kernel.units import Floats, Ints

FLEET: Final = "bench"
STARTS: Final = "manhattan/nyc_1200.csv"
JITTER_M: Final = 150.0
WANDER_M: Final = 40.0
"""Nobody is ever farther from home than this, so two fixes of a driver are believable however soon one follows the other."""

BOX: Final = (40.66, -74.06, 40.92, -73.88)
"""South, west, north, east, degrees: Manhattan and its shores."""

SUBURB_BOX: Final = (41.00, -74.20, 41.18, -73.962)
"""20 km by 20 km."""

_ISLAND: Final = ((40.706, -74.012), (40.742, -73.990), (40.768, -73.974), (40.805, -73.955), (40.868, -73.922))
"""Points along the middle of the island, from the south to the north."""
_ISLAND_SHARES: Final = (0.32, 0.33, 0.22, 0.13)
"""How many drivers are on each stretch between them."""
_ISLAND_WIDTH_M: Final = 700.0
"""Standard deviation across it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where do homes come from? Its name for the report, and places to draw from, float64[n, 2], lat and lng in degrees."""

    name: str
    places: Floats

    def draw(self, count: int, chance: np.random.Generator) -> Floats:
        """Some places near those, each moved by JITTER_M or so: float64[count, 2]."""
        return _moved(self.places[chance.integers(len(self.places), size=count)], chance.normal(0, JITTER_M, (count, 2)))


def manhattan_spread(data_dir: Path) -> Spread:
    """Like the vehicles of a real fleet in Manhattan where its file is found, else a synthetic island."""
    file = data_dir / STARTS
    if not file.is_file():
        return Spread("synthetic island", _island(4_000))
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [(float(row["lat"]), float(row["lon"])) for row in csv.DictReader(lines)]
    return Spread(file.name, np.array(rows))


def even_spread(box: tuple[float, float, float, float], seed: int) -> Spread:
    """Anywhere in a box alike."""
    south, west, north, east = box
    return Spread("even", generator(seed, "even").uniform((south, west), (north, east), (4_000, 2)))


def _island(count: int) -> Floats:
    chance = generator(1, "island")
    stretch = chance.choice(len(_ISLAND_SHARES), size=count, p=_ISLAND_SHARES)
    along = chance.uniform(size=(count, 1))
    points = np.array(_ISLAND)
    middle = points[stretch] * (1 - along) + points[stretch + 1] * along
    return _moved(middle, chance.normal(0, _ISLAND_WIDTH_M, (count, 2)))


def _moved(places: Floats, metres: Floats) -> Floats:
    """These places, each moved so many metres to the east and to the north."""
    plane = Plane(Place(float(places[:, 0].mean()), float(places[:, 1].mean())))
    east_m, north_m = plane.flatten(places[:, 0], places[:, 1])
    return np.stack(plane.unflatten(east_m + metres[:, 0], north_m + metres[:, 1]), axis=1)


@dataclass(frozen=True, slots=True)
class Drivers:
    """Drivers who move about their homes, step by step.

    homes : float64[n, 2], lat and lng in degrees
    first : number of the first driver, for ids that nobody else has
    """

    homes: Floats
    seed: int
    first: int = 0

    def __len__(self) -> int:
        """How many?"""
        return len(self.homes)

    @property
    def ids(self) -> list[str]:
        """Their ids, in the order of the rows."""
        return [f"{FLEET}.d{number:06d}" for number in range(self.first, self.first + len(self.homes))]

    def part(self, start: int, end: int) -> Drivers:
        """Those of these rows, who move otherwise than in the whole."""
        return Drivers(self.homes[start:end], self.seed, self.first + start)

    def at(self, step: int) -> tuple[Ints, Ints]:
        """Where is everyone at this step? Latitudes and longitudes, int64[n], 1e-7 degrees; the same for each who asks."""
        chance = generator(self.seed, "step", step, self.first)
        angle, radius_m = chance.uniform(0, 2 * np.pi, len(self)), WANDER_M * np.sqrt(chance.uniform(0, 1, len(self)))
        places = _moved(self.homes, np.stack([radius_m * np.cos(angle), radius_m * np.sin(angle)], axis=1))
        return to_e7(places[:, 0]).astype(np.int64), to_e7(places[:, 1]).astype(np.int64)

    def at_steps(self, steps: Ints) -> dict[str, tuple[int, int]]:
        """Where is each at its own step? int64[n] -> (lat, lng) by id, 1e-7 degrees."""
        lat_e7, lng_e7 = np.zeros(len(self), dtype=np.int64), np.zeros(len(self), dtype=np.int64)
        for step in np.unique(steps).tolist():
            rows = steps == step
            lats, lngs = self.at(step)
            lat_e7[rows], lng_e7[rows] = lats[rows], lngs[rows]
        return dict(zip(self.ids, zip(lat_e7.tolist(), lng_e7.tolist(), strict=True), strict=True))
