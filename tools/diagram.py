"""Draws the states of a ride from the transition table into docs/architecture.md; with --check says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from matching.model import FINAL, TRANSITIONS

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- states: drawn by tools/diagram.py -->\n", "<!-- end of states -->\n"


def diagram() -> str:
    """The transition table as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "  [*] --> SEARCHING: requested", "  [*] --> SCHEDULED: requested for later"]
    for state, moves in TRANSITIONS.items():
        for happening, ends in moves.items():
            lines += [f"  {state} --> {end}: {happening.lower()}" for end in sorted(ends) if end is not state]
    lines += [f"  {state} --> [*]" for state in sorted(FINAL)]
    return "\n".join([*lines, "```", ""])


def page_with(drawing: str) -> str:
    """The page with this drawing in its place."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + drawing + END + after


def main() -> int:
    """The exit code: 1 where the page is out of date and --check was given."""
    wanted = page_with(diagram())
    if "--check" in sys.argv:
        if wanted != PAGE.read_text(encoding="utf-8"):
            print("docs/architecture.md does not show the transition table: run tools/diagram.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
