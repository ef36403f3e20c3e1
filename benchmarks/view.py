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
    table = Table(title=f"{report.benchmark}: medians of {report.parameters['repeats']} repeats", title_justify="left")
    for name in ("", "figure", "least to most", "floor", "goal", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    for figure in report.figures:
        target, verdict = figure.target, figure.verdict
        spread = f"{shown(min(figure.samples))} to {shown(max(figure.samples))}" if len(figure.samples) > 1 else ""
        table.add_row(
            target.what,
            Text(f"{shown(figure.value)} {target.unit}".strip(), style="bold"),
            spread,
            _asked(target, target.floor),
            _asked(target, target.goal),
            Text(str(verdict), style=_STYLES[verdict]),
        )
    return table


def shown(value: float) -> str:
    """A figure in as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _asked(target: Target, mark: float | None) -> str:
    return "" if mark is None else f"{'<=' if target.at_most else '>='} {shown(mark)}"
