"""What a training run's page tells in words: alarms, the headline, the tiles, its sessions and where it was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cm2.report.page import Tile, compact, duration
from cm2.report.source import is_number
from cm2.report.text import visible
from cm2.train.alarms import Alarming, history
from cm2.train.best import Look
from cm2.train.reproduce import Record, differences


class Raised(msgspec.Struct):
    """An alarm, as the page shows it."""

    step: int
    sign: str
    reason: str
    recorded: bool
    """The run said it; else the report saw it."""


def warnings(rows: Sequence[dict[str, Any]], config: dict[str, Any]) -> list[Raised]:
    """What was put on record, and what the numbers give when one looks now, newest first."""
    found, said = [], set()
    for row in rows:
        for reason in filter(None, str(row.get("alarm") or "").split("; ")):
            sign, _, rest = reason.partition(": ")
            known = sign in ("reward", "collapse", "kl", "length", "format", "gaming", "heldout")
            found.append(Raised(int(row["step"]), sign if known else "judge", visible(rest if known else reason), True))
            said.add((int(row["step"]), sign))
    names = [name for name in Alarming.__struct_fields__ if f"alarms.{name}" in config]
    alarming = msgspec.convert({name: config[f"alarms.{name}"] for name in names}, Alarming)
    moving = config.get("gate", "ends") != "ends" and bool(config.get("curriculum"))
    for alarm in history(rows, alarming, moving):
        if (alarm.step, alarm.sign) not in said:
            found.append(Raised(alarm.step, alarm.sign, alarm.reason, False))
    return sorted(found, key=lambda one: -one.step)


def headline_of(rows: Sequence[dict[str, Any]], found: Sequence[Raised], best: Look | None, state: str) -> str:
    first, last = first_tenth(rows, "reward"), last_tenth(rows, "reward")
    told = "" if first is None or last is None else f"Reward {first:.3f} → {last:.3f} in {len(rows)} steps"
    if best is not None:
        told += f"; best on held-out tasks: {'the start' if best.step == 0 else f'step {best.step}'}, {best.reward:.3f}"
    if found:
        latest = max(one.step for one in found)
        told += f"; {len(found)} alarm{'s' if len(found) > 1 else ''}, the last at step {latest}"
    else:
        told += "; no alarm"
    return told or state


def tiles_of(
    rows: Sequence[dict[str, Any]], looks: Sequence[Look], best: Look | None, config: dict[str, Any], state: str
) -> list[Tile]:
    tiles = []
    for metric, label in (
        ("reward", "training reward"),
        ("strict_pass", "strict pass"),
        ("outcome", "true outcome"),
        ("entropy", "entropy"),
        ("kl", "KL to the start"),
        ("unscored", "items unscored"),
        ("dead_groups", "dead groups"),
        ("length", "tokens a rollout"),
    ):
        first, last = first_tenth(rows, metric), last_tenth(rows, metric)
        if first is not None and last is not None:
            digits = 0 if metric == "length" else 3
            tiles.append(Tile(label, f"{last:.{digits}f}", last, f"from {first:.{digits}f}"))
    if best is not None:
        start = looks[0]
        note = f"step {best.step}" if best.step else "the start: nothing was better beyond noise"
        note += f", start {start.reward:.3f}, last {looks[-1].reward:.3f}"
        tiles.insert(min(3, len(tiles)), Tile("best held-out reward", f"{best.reward:.3f}", best.reward, note))
    seconds = sum(float(row["seconds"]) for row in rows if is_number(row.get("seconds")))
    tokens = sum(row["tokens_generated"] for row in rows if is_number(row.get("tokens_generated")))
    note = f"{compact(tokens)} tokens generated" if tokens else "training"
    if not state.startswith("finished") and config.get("updates") and rows:
        left = max(0, int(config["updates"]) - int(rows[-1]["step"])) * seconds / len(rows)
        note += f"; about {duration(left)} left"
    tiles.append(Tile("time", duration(seconds), seconds, note))
    return tiles


def first_tenth(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    known = [float(row[metric]) for row in rows if is_number(row.get(metric))]
    part = known[: max(1, len(known) // 10)]
    return sum(part) / len(part) if part else None


def last_tenth(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    known = [float(row[metric]) for row in rows if is_number(row.get(metric))]
    part = known[-max(1, len(known) // 10) :]
    return sum(part) / len(part) if part else None


def sessions_of(record: Record | None) -> list[tuple[str, str, str]]:
    if record is None:
        return []
    return [
        (
            visible(one.began),
            f"from step {one.resumed_from}" if one.resumed_from else "from the start",
            visible("; ".join(differences(record.first, one))) if one is not record.first else "",
        )
        for one in record.sessions
    ]


def facts_of(record: Record | None) -> list[tuple[str, str]]:
    if record is None or not record.sessions:
        return []
    parts = [("settings", record.config_hash), *((f"input {name}", value) for name, value in record.inputs.items())]
    parts += [(f"seed {name}", str(value)) for name, value in record.seeds.items()]
    for group in (record.first.versions, record.first.machine, record.first.environment):
        parts += list(group.items())
    return [(visible(name), visible(value)) for name, value in parts]
