"""What a comparison says, in words and short numbers: shared by the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Sequence

from cm2.assure.compare import METRICS
from cm2.assure.compare_result import Comparison, DutyChange, MetricChange
from cm2.assure.paired import Contrast
from cm2.report.page import chance

SHOWN = 40
"""Duties that a table shows; JSON has all of them."""
MARKS = {"better": "▲", "worse": "▼", "could be chance": "·", "not compared": "–"}
TESTS = {"mcnemar": "McNemar", "sign flips": "sign flips"}


def headline(found: Comparison) -> str:
    """The answer in a sentence; no text of the data."""
    counts = [(len(found.changed(change)), change) for change in ("worse", "better", "could be chance")]  # type: ignore[arg-type]
    told = ", ".join(f"{count} {change}" for count, change in counts)
    duties = sum(count for count, _ in counts)
    text = f"{duties} {'duty' if duties == 1 else 'duties'} on {found.tasks:,} shared dialogues: {told}"
    score = next((one for one in found.metrics if one.name == "score"), None)
    if score is not None:
        text += f"; score {points(score.contrast)}, {said(score.change)}"
    return f"{text}."


def called(name: str, letter: str) -> str:
    """What to call an agent, where tables say A and B: nothing more where that is its name."""
    return "" if name == letter else f" ({letter})"


def worth(found: Comparison) -> tuple[list[DutyChange], str]:
    """The duties that a table shows, what changed first, and what it leaves out, in words."""
    ranks = {"worse": 0, "better": 1, "could be chance": 2, "not compared": 3}
    differ = [duty for duty in found.duties if duty.contrast is None or duty.contrast.moved]
    same = len(found.duties) - len(differ)
    if len(found.duties) <= SHOWN:
        differ, same = list(found.duties), 0
    severity = {"critical": 0, "major": 1, "minor": 2}
    differ.sort(key=lambda duty: (ranks[duty.change], severity.get(duty.severity or "", 3), duty.p or 1.0))
    told = [f"{same} duties on which no dialogue differs"] if same else []
    told += [f"{len(differ) - SHOWN} more on which some do"] if len(differ) > SHOWN else []
    return differ[:SHOWN], f"Not shown: {' and '.join(told)}." if told else ""


def said(change: str) -> str:
    """A change, as a sentence ends."""
    return "which could be chance" if change == "could be chance" else change


def points(one: Contrast) -> str:
    """A difference with its interval, in points of a hundred: -4.1 [-7.0, -1.2]."""
    return f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]".replace("-", "−")


def percent(share: float) -> str:
    """A rate."""
    return f"{100 * share:.1f} %"


def p_value(duty: DutyChange) -> str:
    """The corrected p of a duty, or why there is none."""
    if duty.contrast is None:
        return "–"
    if not duty.correction:
        return {0: "none differs", 1: "1 differs"}.get(duty.contrast.moved, f"{duty.contrast.moved} differ")
    return chance(duty.p)


def rates(one: Contrast) -> str:
    """Both rates, in per cent: 92.0 → 87.5."""
    return f"{100 * one.a:.1f} → {100 * one.b:.1f}"


def needed(one: DutyChange | MetricChange) -> str:
    """How many dialogues would show the difference that was found, where it could be chance."""
    if one.change != "could be chance" or one.needed is None:
        return "–"
    return f"{one.needed:,}" if one.needed < 1_000_000 else "> 1M"


def left_out(duty: DutyChange) -> str:
    """The dialogues of a duty that are no pair, by reason."""
    counts = (
        (duty.unscored, "unscored"),
        (duty.only_a, "applies in A only"),
        (duty.only_b, "applies in B only"),
        (duty.redefined, "another duty"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def metric_name(one: MetricChange) -> str:
    """What tables call a metric."""
    return METRICS[one.name]


def legend(found: Comparison) -> list[str]:
    """How to read it, and what it does not say."""
    lines = [
        f"Differences are B − A in points, with 95 % intervals. A change is called better or worse where the corrected "
        f"p is at most {found.alpha:g}: Holm over the critical duties, Benjamini–Hochberg over all for the others.",
        "Score and outcome stand alone: their p is not corrected.",
        "Dialogues in which a duty is unscored on a side, or does not apply, are in no pair. That a difference could "
        "be chance does not show that there is none; the need is how many dialogues would show one of that size.",
    ]
    least = [one.detectable for one in found.duties if one.change == "could be chance" and one.detectable is not None]
    if least:
        lines.append(
            f"With so many dialogues a duty's change is seen ({found.power:.0%} of the time, before correction) from "
            f"{span(least)} points on."
        )
    return lines


def span(shares: Sequence[float]) -> str:
    """From the least to the most, in points."""
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
