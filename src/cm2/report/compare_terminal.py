"""A comparison for the terminal, and what planning one says. Text of the data is made visible and reads no markup."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cm2.assure.compare_result import Change, Comparison
from cm2.assure.drive import Expected, Spent
from cm2.assure.paired import Contrast
from cm2.assure.power import Plan
from cm2.report import compare_text as text
from cm2.report.page import chance
from cm2.report.text import visible

STYLES = {"better": "green", "worse": "bold red", "could be chance": "", "not compared": "dim"}


def shown(found: Comparison) -> list[RenderableType]:
    """The comparison."""
    parts: list[RenderableType] = [Text(text.headline(found), style="bold")]
    heads = ("n", "A → B, %", "B − A [95 %]", "+/−", "p", "", "need")
    table = table_of("", *heads)
    for metric in found.metrics:
        one = metric.contrast
        table.add_row(
            text.metric_name(metric), *_numbers(one), chance(one.p), _change(metric.change), text.needed(metric)
        )
    if found.metrics and found.duties:
        table.add_section()
    duties, rest = text.worth(found)
    for duty in duties:
        name = Text(visible(duty.duty)).append(f" {duty.severity}" if duty.severity else "", style="dim")
        if duty.contrast is None:
            table.add_row(name, "0", "–", "–", "–", "–", _change(duty.change), "–")
            continue
        p = chance(duty.p) if duty.correction else "–"
        table.add_row(name, *_numbers(duty.contrast), p, _change(duty.change), text.needed(duty))
    parts.append(table)
    if rest:
        parts.append(Text(rest, style="dim"))
    for duty in duties:
        if out := text.left_out(duty):
            why = f" ({visible(duty.why_unscored)})" if duty.why_unscored else ""
            parts.append(Text(f"{visible(duty.duty)}: left out {out}{why}", style="dim"))
        for title, flips in (("worse", duty.got_worse), ("better", duty.got_better)):
            if flips and duty.change in ("worse", "better"):
                ids = ", ".join(visible(flip.task) for flip in flips)
                why = visible(flips[0].reason)
                parts.append(Text(f"{visible(duty.duty)}: {title} in {ids}" + (f" ({why})" if why else "")))
    parts += [Text(line, style="dim") for line in text.legend(found)]
    return parts + [Text(visible(note)) for note in found.notes]


def _numbers(one: Contrast) -> tuple[str, str, str, str]:
    return f"{one.n:,}", text.rates(one), text.points(one), f"{one.better}/{one.worse}"


def _change(change: Change) -> Text:
    return Text("chance?" if change == "could be chance" else change, style=STYLES[change])


def table_of(*heads: str) -> Table:
    """An empty table; all columns but the first are numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    return table


def money(spent: dict[str, Spent]) -> list[RenderableType]:
    """What driving the agents has cost."""
    if not spent:
        return []
    table = Table(title="spent, failed and repeated runs included")
    for head in ("agent", "rollouts", "of this call", "prompt tokens", "answer tokens", "US$"):
        table.add_column(head, justify="left" if head == "agent" else "right")
    for name, one in spent.items():
        counts = (one.rollouts, one.written, one.prompt_tokens, one.generated_tokens)
        money = "unknown" if one.cost is None else f"{one.cost:.4f}"
        table.add_row(name.upper(), *(f"{count:,}" for count in counts), money)
    return [table]


def plans(found: list[Plan], alpha: float, power: float) -> Table:
    """How many dialogues it takes."""
    table = table_of("correlation", "come out differently", "dialogues", "power")
    table.title = f"from {found[0].rate:.1%} to {found[0].rate + found[0].lift:.1%}, alpha {alpha:g}, power {power:g}"
    for one in found:
        phi = "–" if one.correlation is None else f"{one.correlation:.2f}"
        table.add_row(phi, f"{one.discordance:.1%}", f"{one.pairs:,}", f"{one.power:.3f}")
    return table


def least(pairs: int, found: dict[str, float | None], alpha: float, power: float) -> Table:
    """What so many dialogues can show, by the share of them that come out differently."""
    table = table_of("come out differently", "smallest change seen")
    table.title = f"{pairs:,} dialogues, alpha {alpha:g}, power {power:g}"
    for share, change in found.items():
        table.add_row(f"{float(share):.0%}", "none" if change is None else f"{100 * change:.1f} points")
    return table


def asked(found: Expected) -> Text:
    """What driving would ask."""
    told = f"{found.tasks:,} tasks, {found.rollouts:,} rollouts, about {found.actions:,} requests"
    return Text(f"{told} (as many steps as the reference took)")
