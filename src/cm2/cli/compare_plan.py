"""`cm2 compare --plan`: how many dialogues it takes to see a change, and what so many can show."""

from __future__ import annotations

from typing import Any

from cm2.cli.common import emit

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Shares of discordant dialogues for which it is told what can be seen."""


def least_seen(pairs: int, discordance: float | None, alpha: float, power: float) -> dict[str, float | None]:
    """The smallest change that so many pairs can show, by the share of them that come out differently."""
    from cm2.assure.power import detectable

    shares = SHARES if discordance is None else (discordance,)
    return {f"{share:g}": detectable(pairs, share, alpha, power) for share in shares}


def plan_pairs(
    given: list[str],
    rate: float | None,
    lift: float | None,
    pairs: int | None,
    correlation: float | None,
    discordance: float | None,
    alpha: float,
    power: float,
    as_json: bool,
) -> None:
    """Print what is planned; see the flags of the verb."""
    import msgspec

    from cm2.assure import power as planning
    from cm2.errors import ConfigError
    from cm2.report import compare_terminal as terminal

    if given:
        raise ConfigError("a plan reads nothing", fix="leave A and B out")
    summary: dict[str, Any] = {"alpha": alpha, "power": power}
    shown: list[Any] = []
    if lift is not None:
        if rate is None:
            raise ConfigError("a lift starts at a rate", fix="give --rate, the pass rate of A")
        found = planning.plan(rate, lift, correlation=correlation, discordance=discordance, alpha=alpha, power=power)
        summary["plans"] = msgspec.to_builtins(found)
        shown.append(terminal.plans(found, alpha, power))
    if pairs is not None:
        least = least_seen(pairs, discordance, alpha, power)
        summary |= {"pairs": pairs, "detectable": least}
        shown.append(terminal.least(pairs, least, alpha, power))
    if not shown:
        raise ConfigError("there is nothing to plan", fix="give --rate and --lift, or --pairs")
    emit(summary, as_json, shown)
