"""How is a benchmark seen? A bar in a terminal, a line for each step elsewhere, and a table at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from benchmarks.figures import Report, Target

_STYLES = {Verdict.GOAL: "bold green", Verdict.FLOOR: "green", Verdict.BELOW: "bold red", Verdict.NONE: ""}


class Steps(Protocol):
    """Whoever wants to know what is being done."""

    def begin(self, what: str) -> None:
        """The next step."""
        ...


class StepsView:
    """Shows the steps of a run."""

    def __init__(self, console: Console, title: str, steps: int) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._title = title
        self._task = self._progress.add_task(title, total=steps)
        self._begun = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str) -> None:
        """The next step."""
        if not self._console.is_terminal:
            self._console.print(f"{self._title}: {what}", soft_wrap=True, markup=False, highlight=False)
        self._progress.update(self._task, description=f"{self._title}: {what}", completed=self._begun)
        self._begun += 1


def report_table(report: Report) -> RenderableType:
    """The end of a run, for people."""
    repeats = report.parameters.get("repeats")
    title = report.benchmark if repeats is None else f"{report.benchmark}: medians of {repeats}, least to most"
    table = Table(title=title, title_justify="left", show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for figure in report.figures:
        value = Text(f"{shown(figure.value)} {figure.target.unit}".strip(), style="bold")
        if len(figure.samples) > 1:
            value.append(f"\n{shown(min(figure.samples))} to {shown(max(figure.samples))}", style="not bold dim")
        said = Text(figure.target.what)
        if figure.verdict is not Verdict.NONE:
            said.append(f"\n{figure.verdict}", style=_STYLES[figure.verdict])
            said.append(f" ({_asked(figure.target)})", style="dim")
        table.add_row(figure.target.key, value, said)
    return table


def shown(value: float) -> str:
    """A figure in as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _asked(target: Target) -> str:
    side = "at most" if target.at_most else "at least"
    asked = {"floor": target.floor, "goal": target.goal}
    return "; ".join(f"{name}: {side} {shown(mark)}" for name, mark in asked.items() if mark is not None)
