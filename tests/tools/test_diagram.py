"""The picture of a ride's states is the transition table's own."""

from __future__ import annotations

from matching.model import FINAL, TRANSITIONS, RideState
from tools.diagram import PAGE, diagram, page_with


def test_the_page_shows_exactly_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with(diagram()), "run make diagrams"


def test_every_move_of_the_table_is_drawn_and_nothing_else() -> None:
    moves = {
        f"{state} --> {end}: {happening.lower()}"
        for state, happenings in TRANSITIONS.items()
        for happening, ends in happenings.items()
        for end in ends - {state}
    }
    ends = {f"{state} --> [*]" for state in FINAL}
    begins = {"[*] --> SEARCHING: requested", "[*] --> SCHEDULED: requested for later"}
    drawn = [line.strip() for line in diagram().splitlines() if "-->" in line]
    assert set(drawn) == moves | ends | begins
    assert len(drawn) == len(set(drawn))


def test_every_state_is_in_the_picture() -> None:
    assert all(state.value in diagram() for state in RideState)
