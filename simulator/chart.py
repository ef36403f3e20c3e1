"""How does a city look in a terminal? Points as braille dots, eight to a character, with cells as the ground they lie on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from hexhail.kernel import geo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.units import Floats, Ints

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille character: four rows, two columns. Source: Unicode 16, block Braille Patterns."""

Box = tuple[float, float, float, float]
"""South, west, north, east: degrees."""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Points of one kind: float64[n, 2], lat and lng in degrees, and their style."""

    places: Floats
    style: str


def braille(box: Box, width: int, height: int, marks: Sequence[Mark], ground: Mapping[int, str]) -> Text:
    """A map of `width` x `height` characters, north up. Points outside the box are left out.

    Where several kinds share a character, the last one gives its style. `ground` : H3 cell -> style of the characters whose
    middle lies in it (all cells of one resolution).
    """
    bits = np.zeros((height, width), dtype=np.int64)
    kind = np.full((height, width), -1, dtype=np.int64)
    for number, mark in enumerate(marks):
        row, column = _dots(box, width, height, mark.places)
        np.bitwise_or.at(bits, (row // 4, column // 2), DOTS[row % 4, column % 2])
        kind[row // 4, column // 2] = number
    below = _ground(box, width, height, ground)
    text = Text()
    for y in range(height):
        for x in range(width):
            style = marks[int(kind[y, x])].style if kind[y, x] >= 0 else ""
            text.append(chr(0x2800 + int(bits[y, x])), style=below.get((y, x), style))
        if y + 1 < height:
            text.append("\n")
    return text


def box_around(places: Floats, width: int, height: int) -> Box:
    """The box that holds nearly all of these places (float64[n, 2], n >= 1), as wide and high as the map's shape asks for.

    Two hundredths of the places (the outermost) may fall outside.
    """
    low, high = (np.percentile(places, q, axis=0) for q in (1, 99))
    middle = (low + high) / 2
    stretch = float(np.cos(np.radians(middle[0])))
    span = np.maximum((high - low) * np.array([1.0, stretch]) * 1.1, 0.002)
    dots = np.array([height * 4, width * 2])
    half = dots * (span / dots).max() / 2 / np.array([1.0, stretch])
    return float(middle[0] - half[0]), float(middle[1] - half[1]), float(middle[0] + half[0]), float(middle[1] + half[1])


def _dots(box: Box, width: int, height: int, places: Floats) -> tuple[Ints, Ints]:
    south, west, north, east = box
    up = (north - places[:, 0]) / (north - south) * height * 4
    across = (places[:, 1] - west) / (east - west) * width * 2
    row, column = np.floor(up).astype(np.int64), np.floor(across).astype(np.int64)
    inside = (row >= 0) & (row < height * 4) & (column >= 0) & (column < width * 2)
    return row[inside], column[inside]


def _ground(box: Box, width: int, height: int, ground: Mapping[int, str]) -> dict[tuple[int, int], str]:
    if not ground:
        return {}
    resolution = geo.cell_resolution(next(iter(ground)))
    if resolution is None:
        return {}
    south, west, north, east = box
    rows, columns = np.divmod(np.arange(width * height), width)
    lat = north - (rows + 0.5) / height * (north - south)
    lng = west + (columns + 0.5) / width * (east - west)
    cells = geo.cells_of(lat, lng, resolution).tolist()
    return {
        (row, column): ground[cell]
        for row, column, cell in zip(rows.tolist(), columns.tolist(), cells, strict=True)
        if cell in ground
    }
