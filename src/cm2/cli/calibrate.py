"""`cm2 judge calibrate VERDICTS… --against LABELS`: what a judge's yes and no are worth."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit

SHOWN = 20
FOCUS = {
    "assistant.tool_calls": "calls",
    "assistant.content.thinking": "thinking",
    "assistant.content.user_visible_reply": "replies",
    "tool.content": "answers",
}


def register(app: typer.Typer) -> None:
    """Add the verb `calibrate`."""
    app.command()(calibrate)


def calibrate(
    verdicts: Annotated[
        list[str],
        typer.Argument(metavar="VERDICTS…", help="The judge's store; several are repeated runs of the same judge."),
    ],
    against: Annotated[
        str, typer.Option(help="Labels of people (JSONL: dialogue, turn, item, met), or a stronger judge's store.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Where the calibration goes (JSON).")
    ] = "judge.calibration.json",
    checklists: Annotated[
        str | None, typer.Option(help="The labelled dialogues: gives each item its kind, focus and wording.")
    ] = None,
    target: Annotated[float, typer.Option(help="The error that a vote has to reach.")] = 0.05,
    threshold: Annotated[float, typer.Option(help="Kappa below which a duty is listed as doubtful.")] = 0.6,
    least: Annotated[int, typer.Option(help="Labels that a duty must have to be listed.")] = 20,
    format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a judge against people or a stronger judge: agreement, kappa, error rates, repeatability, votes."""
    import msgspec

    from cm2.judge.calibrate import CalibrateConfig, calibrate_file

    found = calibrate_file(
        CalibrateConfig(
            verdicts=verdicts,
            against=against,
            output=output,
            checklists=checklists,
            format=format,
            target=target,
            threshold=threshold,
            least=least,
        )
    )
    groups = list(found.kinds.items())
    groups += [(f"on {FOCUS.get(name, name)}", group) for name, group in found.focuses.items()]
    groups += [(f"by {name}", group) for name, group in found.judges.items()]
    groups.append(("all", found.total))
    if found.steps is not None:
        groups.append(("step by step", found.steps))
    emit(msgspec.to_builtins(found), as_json, [_agreement(found, groups), _errors(found, groups), *_notes(found)])


def _agreement(found: Any, groups: list[tuple[str, Any]]) -> Table:
    runs = f"{found.votes} votes a verdict" if found.votes else f"{found.runs} runs" if found.runs > 1 else "1 run"
    table = Table(title=f"{', '.join(found.judge)} against {found.against}: {found.labels} labels, {runs}")
    for name in ("", "pairs", "base rate", "says yes", "agree", "kappa (95 %)", "PABAK", "unscored"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for name, group in groups:
        interval = "" if group.kappa_low is None else f" ({group.kappa_low:.2f} … {group.kappa_high:.2f})"
        table.add_row(
            name,
            str(group.counts.n),
            _percent(group.base_rate),
            _percent(group.judge_yes),
            _percent(group.agreement and group.agreement.rate),
            "–" if group.kappa is None else f"{group.kappa:.2f}{interval}",
            "–" if group.pabak is None else f"{group.pabak:.2f}",
            str(group.counts.judge_unscored),
        )
    return table


def _errors(found: Any, groups: list[tuple[str, Any]]) -> Table:
    table = Table(title=f"errors, and the smallest vote that brings both to {found.target:.1%} (and its 95 % range)")
    for name in ("", "false yes (95 %)", "false no (95 %)", "same", "alpha", "independent", "vote"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for name, group in groups:
        repeat = group.repeat
        table.add_row(
            name,
            _rate(group.false_yes),
            _rate(group.false_no),
            _percent(repeat and repeat.identical.rate),
            "–" if repeat is None or repeat.alpha is None else f"{repeat.alpha:.2f}",
            _vote(group, "independent"),
            _vote(group, "correlated"),
        )
    return table


def _notes(found: Any) -> list[str]:
    notes = []
    if found.runs == 1 and not found.votes:
        notes.append(
            "same, alpha and vote need repeated runs (other stores of the same judge). Errors of one judge are"
            " correlated, so a vote needs more than the independent number; how much more shows only there."
        )
    else:
        for error, advice in (("false yes", found.total.vote_yes), ("false no", found.total.vote_no)):
            if advice is not None and advice.rho is not None:
                low, high = advice.rho_low, advice.rho_high
                notes.append(
                    f"{error}: judgements of one item are correlated by {advice.rho:.2f} ({low:.2f} … {high:.2f});"
                    f" no vote of this judge goes below an error of {advice.floor:.1%}"
                )
    if found.people is not None:
        notes.append(f"people agree among themselves with an alpha of {found.people:.2f}")
    if found.total.missing:
        notes.append(f"{found.total.missing} labels are about something that a run has no verdict about")
    if found.doubtful:
        notes.append(f"kappa below {found.threshold:g}; do not use as a reward before the wording is better:")
    for doubt in found.doubtful[:SHOWN]:
        sure = "" if doubt.what == "item" else ", surely" if doubt.sure else ", perhaps: the interval reaches above"
        asked = f": {doubt.question}" if doubt.question else ""
        notes.append(
            f"  {doubt.what} {doubt.name}: kappa {doubt.kappa:.2f}, PABAK {doubt.pabak:.2f}, base rate"
            f" {doubt.base_rate:.0%}, {doubt.n} pairs{sure}{asked}"
        )
    if len(found.doubtful) > SHOWN:
        notes.append(f"  … and {len(found.doubtful) - SHOWN} more in the file")
    return notes


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _rate(rate: Any) -> str:
    if rate is None:
        return "–"
    return f"{100 * rate.rate:.2g}% ({100 * rate.low:.2g} … {100 * rate.high:.2g})"


def _vote(group: Any, which: str) -> str:
    """The larger of what false yes and false no need, with the range that the data leave open."""
    needs = [getattr(advice, which) for advice in (group.vote_yes, group.vote_no) if advice is not None]
    if not needs or None in needs:
        return "–"

    def largest(name: str) -> str:
        values = [getattr(need, name) for need in needs]
        return "–" if None in values else str(max(values))

    return f"{largest('n')} ({largest('hopeful')} … {largest('safe')})"
