"""Road networks from files, of whatever kind: which one it is, its content tells."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from routing.car_tags import DEFAULT_SPEED_KMH, MAX_SPEED_KMH
from routing.graph_file import MAGIC, read_graph_file
from routing.graphml import read_graphml
from routing.links import graph_of_links
from routing.node_link import read_node_link
from routing.osm import OsmParams, read_osm
from routing.road_files import GraphReport, RoutingFileError

if TYPE_CHECKING:
    from pathlib import Path

    from routing.graph import RoadGraph

__all__ = ["DEFAULT_SPEED_KMH", "MAX_SPEED_KMH", "GraphReport", "RoadFormat", "RoutingFileError", "format_of", "load_road_graph"]

_PEEK = 4096


class RoadFormat(Enum):
    """The kinds of road files; the value is what people call them."""

    HEXROADS = "Hexhail road file"
    PBF = "OpenStreetMap PBF"
    XML = "OpenStreetMap XML"
    XML_GZ = "OpenStreetMap XML, gzip"
    XML_BZ2 = "OpenStreetMap XML, bzip2"
    GRAPHML = "OSMnx GraphML"
    NODE_LINK = "networkx node-link JSON"


_SUFFIXES = {
    ".hexroads": RoadFormat.HEXROADS,
    ".pbf": RoadFormat.PBF,
    ".osm": RoadFormat.XML,
    ".osm.gz": RoadFormat.XML_GZ,
    ".osm.bz2": RoadFormat.XML_BZ2,
    ".graphml": RoadFormat.GRAPHML,
    ".json": RoadFormat.NODE_LINK,
}
_OSMIUM_NAMES = {RoadFormat.PBF: "pbf", RoadFormat.XML: "osm", RoadFormat.XML_GZ: "osm.gz", RoadFormat.XML_BZ2: "osm.bz2"}


def load_road_graph(path: Path, osm: OsmParams | None = None) -> tuple[RoadGraph, GraphReport]:
    """The road graph of a file of any `RoadFormat`, and what was left out of it: for a Hexhail road file, when it was made.

    Raises RoutingFileError naming the file and what is wrong with it; OSError where it cannot be read.
    """
    kind = format_of(path)
    if kind is RoadFormat.HEXROADS:
        return read_graph_file(path)
    if kind is RoadFormat.GRAPHML:
        return graph_of_links(path, read_graphml(path))
    if kind is RoadFormat.NODE_LINK:
        return graph_of_links(path, read_node_link(path))
    return read_osm(path, _OSMIUM_NAMES[kind], osm or OsmParams())


def format_of(path: Path) -> RoadFormat:
    """Of which kind is a road file? Its first bytes tell, or else its name.

    Raises RoutingFileError where neither does; OSError where it cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(_PEEK)
    found = _format_of_content(begin)
    if found is None:
        name = path.name.lower()
        found = next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)
    if found is None:
        known = ", ".join(_SUFFIXES)
        raise RoutingFileError(path, f"{'is not' if begin else 'is empty, not'} a road file of a known kind ({known})")
    return found


def _format_of_content(begin: bytes) -> RoadFormat | None:
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(MAGIC):
        return RoadFormat.HEXROADS
    if b"OSMHeader" in begin[:32]:
        return RoadFormat.PBF
    if begin.startswith(b"\x1f\x8b"):
        return RoadFormat.XML_GZ
    if begin.startswith(b"BZh"):
        return RoadFormat.XML_BZ2
    if text.startswith(b"<"):
        return RoadFormat.GRAPHML if b"<graphml" in text else RoadFormat.XML if b"<osm" in text else None
    return RoadFormat.NODE_LINK if text.startswith(b"{") else None
