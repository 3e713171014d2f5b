"""A dialogue and a file's statistics for the terminal.

A transcript is written by models, tools and strangers: every text of it goes through `visible` (no control characters,
so no terminal escapes; credentials hidden) into a rich `Text`, which reads no markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cm2.checklist import Checklist, Item, Task, call_text
from cm2.curate.statistics import DISTRIBUTIONS, Distribution, Statistics
from cm2.dialogue import Dialogue, Step
from cm2.formats.wire import named
from cm2.report.text import visible
from cm2.verdict import Verdict

BESIDE = 110
"""Columns from which on a checklist stands beside its turn instead of below it."""
BINS = 12
TOOLS_SHOWN = 20
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def transcript(task: Task, width: int, verdicts: Iterable[Verdict] = ()) -> RenderableType:
    """A whole dialogue: turns, steps, private thinking dimmed, calls, responses with their origin, checklists."""
    dialogue = task.dialogue
    judged: dict[tuple[int, int, str], list[Verdict]] = {}
    for verdict in verdicts:
        judged.setdefault((verdict.turn, verdict.variant, verdict.item), []).append(verdict)
    parts: list[RenderableType] = [_head(dialogue)]
    parts += _steps(dialogue.opening)
    for number, turn in enumerate(dialogue.turns):
        body = Group(_line("user", turn.user, "bold cyan"), *_steps(turn.steps))
        mine = [checklist for checklist in task.checklists if checklist.turn == number]
        parts.append(Rule(Text(f"turn {number}"), align="left", style="dim"))
        lists = [_checklist(checklist, judged) for checklist in mine]
        if lists and width >= BESIDE:
            grid = Table.grid(padding=(0, 2), expand=True)
            grid.add_column(ratio=3)
            grid.add_column(ratio=2)
            grid.add_row(body, Group(*lists))
            parts.append(grid)
        else:
            parts += [body, *lists]
    beyond = [checklist for checklist in task.checklists if not 0 <= checklist.turn < len(dialogue.turns)]
    for checklist in beyond:
        parts += [Rule(Text(f"turn {checklist.turn} was not reached"), align="left", style="dim")]
        parts += [_checklist(checklist, judged)]
    return Group(*parts)


def _head(dialogue: Dialogue) -> RenderableType:
    tools = ", ".join(tool.name or "(no name)" for tool in dialogue.tools) or "none"
    lines: list[RenderableType] = [Text(visible(f"dialogue {dialogue.id}"), style="bold")]
    if dialogue.source:
        lines.append(_line("source", dialogue.source, "dim"))
    lines.append(_line(f"tools ({len(dialogue.tools)})", tools, "dim"))
    if dialogue.meta:
        lines.append(_line("meta", dialogue.meta, "dim"))
    if dialogue.system is not None:
        lines.append(_line("system", dialogue.system, "magenta"))
    return Group(*lines)


def _line(label: str, content: Any, style: str, dim: bool = False) -> RenderableType:
    """A label and its text, which hangs beside it over as many lines as it needs."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(visible(label), style=style), Text(visible(content), style="dim italic" if dim else ""))
    return grid


def _steps(steps: list[Step]) -> list[RenderableType]:
    return [Padding(Group(*_step(number, step)), (0, 0, 0, 2)) for number, step in enumerate(steps)]


def _step(number: int, step: Step) -> Iterator[RenderableType]:
    yield Text(f"step {number}", style="dim")
    if step.thinking is not None:
        yield _line("thinks", step.thinking or "(nothing)", "dim italic", dim=True)
    answered = []
    for index, call in enumerate(step.calls):
        text = _call(call.name, call.raw if call.raw is not None else call.arguments)
        yield _line("calls", text, "bold yellow" if call.valid else "bold red")
        if call.error is not None or not call.valid:
            error = call.error or f"the arguments are {named(call.arguments)}, not an object"
            yield _line("  malformed", error, "red")
        response = step.response_to(index)
        if response is None:
            yield _line("  no answer", "", "red")
        else:
            answered.append(response)
            yield _line(f"  {response.origin}", response.content, "red" if response.origin == "error" else "blue")
    for response in step.responses:
        if not any(response is known for known in answered):
            yield _line(f"  {response.origin}, to no call", response.content, "red")
    if step.reply is not None:
        yield _line("replies", step.reply or "(nothing)", "bold green")
    elif not step.calls:
        yield _line("says nothing", "", "red")


def _call(name: str, arguments: Any) -> str:
    try:
        return call_text(name, arguments)
    except UnicodeEncodeError:  # lone surrogates, which `visible` shows
        return f"{name}({arguments!r})"


def _checklist(checklist: Checklist, judged: dict[tuple[int, int, str], list[Verdict]]) -> RenderableType:
    title = f"checklist of turn {checklist.turn}"
    title += f", variant {checklist.variant}" if checklist.variant else ""
    title += f", by {checklist.labeler}" if checklist.labeler else ""
    table = Table(title=Text(visible(title)), title_justify="left", expand=True, show_edge=False)
    table.add_column("")
    table.add_column("item", overflow="fold", max_width=12)
    table.add_column("weight", justify="right")
    table.add_column("duty", overflow="fold", ratio=1)
    for item in checklist.items:
        mine = judged.get((checklist.turn, checklist.variant, item.id))
        table.add_row(_mark(mine), Text(visible(item.id)), f"{item.weight:.2f}", _duty(item))
    return table


def _mark(verdicts: list[Verdict] | None) -> Text:
    """Met in some state, undecided, or never met; nothing where nobody judged."""
    if not verdicts:
        return Text("")
    met = [verdict.met for verdict in verdicts]
    mark, style = _MARKS[True if True in met else None if None in met else False]
    return Text(mark, style=style)


def _duty(item: Item) -> Text:
    notes = [item.kind] if item.kind else []
    notes += ["strict"] if item.required_for_next_turn else []
    notes += [f"after {', '.join(item.depends_on)}"] if item.depends_on else []
    notes += [] if item.check is not None else ["no check"]
    text = Text(visible(item.question))
    return text.append(visible(f" ({'; '.join(notes)})"), style="dim") if notes else text


def tables(statistics: Statistics) -> list[RenderableType]:
    """A file's statistics: counts, distributions, tools."""
    counts = Table(title=f"{statistics.dialogues:,} dialogues")
    counts.add_column("")
    counts.add_column("", justify="right")
    share = statistics.thinking_share
    for name, value in (
        ("turns", f"{statistics.turns:,}"),
        ("steps", f"{statistics.steps:,}"),
        ("steps that think", "–" if share is None else f"{share:.1%}"),
        ("calls", f"{statistics.calls:,}"),
        ("  malformed", f"{statistics.malformed_calls:,}"),
        ("  of a tool that is not offered", f"{statistics.unknown_calls:,}"),
        ("  without an answer", f"{statistics.unanswered_calls:,}"),
        ("distinct tools", f"{len(statistics.offered):,}"),
        ("dialogues that the assistant begins", f"{statistics.openings:,}"),
        ("dialogues with a checklist", f"{statistics.labelled:,}"),
        ("checklist items", f"{statistics.items:,}"),
        (f"tokens ({statistics.tokens_by})", f"{statistics.tokens:,}"),
        ("rows that do not read", f"{statistics.unreadable:,}"),
    ):
        counts.add_row(Text(visible(name)), value)
    shapes = Table(title="per dialogue and turn")
    for name in ("", "mean", "min", "median", "95 %", "max"):
        shapes.add_column(name, justify="right" if name else "left")
    bars: list[RenderableType] = []
    for field, title in DISTRIBUTIONS.items():
        distribution: Distribution = getattr(statistics, field)
        shapes.add_row(title, *map(_number, distribution.as_json().values()))
        bars.append(histogram(distribution, title))
    return [counts, shapes, _tools(statistics), *bars]


def _number(value: float | int | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _tools(statistics: Statistics) -> Table:
    counted = list(statistics.as_json()["tools"].items())
    table = Table(title="tools by calls" + (f", the first {TOOLS_SHOWN}" if len(counted) > TOOLS_SHOWN else ""))
    table.add_column("tool", overflow="fold")
    table.add_column("dialogues", justify="right")
    table.add_column("calls", justify="right")
    for name, seen in counted[:TOOLS_SHOWN]:
        table.add_row(Text(visible(name)), f"{seen['dialogues']:,}", f"{seen['calls']:,}")
    return table


def histogram(distribution: Distribution, title: str) -> Table:
    """How often each value (or range of values) came, as bars."""
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, min_width=10)
    table.add_column(justify="right", no_wrap=True)
    bins = distribution.bins(BINS)
    highest = max((count for _, _, count in bins), default=0)
    for first, last, count in bins:
        label = f"{first:,}" if first == last else f"{first:,}–{last:,}"
        table.add_row(label, Bar(highest, 0, count, color="cyan"), f"{count:,}")
    return table
