"""Charts of a training run's page, those first that say most. What a run did not record has no chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cm2.report.panels import Line, Panel, benchmark_panels, line_of, panel
from cm2.report.source import is_number
from cm2.train.benchmarks import Point
from cm2.train.best import Look

_ROLES = ("run2", "run1", "run3", "run4", "run5", "run0")
_SECTIONS: tuple[tuple[str, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]], ...] = (
    (
        "Policy",
        (
            ("entropy", (("entropy", "entropy"),)),
            ("KL to the start", (("kl", "KL"),)),
            ("clipped share", (("clip_ratio", "clipped"),)),
            ("gradient norm", (("grad_norm", "gradient norm"),)),
            ("loss", (("loss", "loss"),)),
            ("learning rate", (("lr", "learning rate"),)),
        ),
    ),
    (
        "Length and format",
        (
            ("tokens a rollout", (("length", "tokens"),)),
            ("steps a rollout", (("steps", "steps"),)),
            ("cut off at a limit", (("truncated_share", "share"),)),
            ("calls that do not parse", (("malformed", "share"),)),
        ),
    ),
    (
        "Judging",
        (
            ("items unscored", (("unscored", "share"),)),
            ("failed rollouts", (("failures", "rollouts"),)),
            ("agreement with the gold judge", (("judge_agreement", "share"),)),
            ("training and gold judge", (("gold_training", "training"), ("gold_reward", "gold"))),
            ("paid and held-out items", (("hold_out_training", "paid"), ("hold_out_reward", "held out"))),
            ("canaries answered wrongly", (("canary_rate", "must stay no"), ("given_rate", "must be yes"))),
        ),
    ),
    (
        "Signal",
        (
            ("dead groups", (("dead_groups", "share"),)),
            ("deviation of rewards", (("reward_std", "deviation"),)),
            ("groups stopped early", (("groups_stopped_early", "groups"),)),
        ),
    ),
    (
        "Speed",
        (
            ("seconds a step", (("seconds", "step"), ("seconds_rollout", "rollouts"), ("seconds_judge", "judging"))),
            ("tokens generated", (("tokens_generated", "tokens"),)),
            ("tokens computed in training", (("tokens_trained", "tokens"),)),
        ),
    ),
)  # fmt: skip
_TOLD = {metric for _, panels in _SECTIONS for _, lines in panels for metric, _ in lines}
_ELSEWHERE = {
    *("step", "reward", "strict_pass", "outcome", "rollouts", "groups_without_signal", "truncated", "generation"),
    *("probe", "tokens_shown", "best_step"),
}


class Section(msgspec.Struct):
    """Charts that belong together."""

    name: str
    panels: list[Panel]


def sections(
    rows: Sequence[dict[str, Any]], looks: Sequence[Look], marks: Sequence[float], points: Sequence[Point] = ()
) -> list[Section]:
    """All charts, those first that say most."""

    def drawn(title: str, lines: Sequence[tuple[str, str]]) -> Panel | None:
        return panel(title, [line_of(rows, metric, name, role) for (metric, name), role in zip(lines, _ROLES)], marks)  # noqa: B905

    def small(prefix: str) -> list[Panel | None]:
        names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
        return [drawn(name.removeprefix(prefix), [(name, name.removeprefix(prefix))]) for name in names]

    reward = [
        drawn("training reward", [("reward", "reward"), ("strict_pass", "strict pass"), ("outcome", "true outcome")]),
        _heldout(looks, marks),
    ]
    known = {name for row in rows for name, value in row.items() if is_number(value)}
    others = sorted(
        name
        for name in known - _TOLD - _ELSEWHERE
        if not name.startswith(
            ("seconds", "benchmark/", "duty/", "domain/", "heldout_", "llm_", "gold_", "canar", "given")
        )
    )
    wanted: list[tuple[str, list[Panel | None]]] = [
        ("Reward", reward),
        ("Benchmarks", benchmark_panels(points, marks)),
        ("Reward by duty", small("duty/")),
        ("Reward by domain", small("domain/")),
        *((name, [drawn(title, lines) for title, lines in panels]) for name, panels in _SECTIONS),
        ("Other numbers", [drawn(name.replace("_", " "), [(name, name)]) for name in others]),
    ]
    filled = [(name, [one for one in panels if one is not None]) for name, panels in wanted]
    return [Section(name, panels) for name, panels in filled if panels]


def _heldout(looks: Sequence[Look], marks: Sequence[float]) -> Panel | None:
    if not looks:
        return None
    line = Line(
        "held-out reward", "run2", [float(one.step) for one in looks], [one.reward for one in looks],
        [one.reward if one.low is None else one.low for one in looks],
        [one.reward if one.high is None else one.high for one in looks],
    )  # fmt: skip
    return panel("held-out reward", [line], marks, f"mean of {len(looks[-1].tasks)} tasks with its 95 % interval")
