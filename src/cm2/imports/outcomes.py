"""Outcomes: what the fields of a row say about how well it went, found by their names."""

from __future__ import annotations

from typing import Any

from cm2.imports.draft import Draft
from cm2.imports.text import as_dict, as_list, as_text
from cm2.imports.work import plain_score

NAMES = ("score", "rating", "feedback", "label", "grade", "success", "passed", "thumbs", "user_rating", "outcome")


def take_outcomes(value: dict[str, Any], draft: Draft) -> set[str]:
    """Take `reward`, `scores` and fields like them into a draft's metadata; the keys that were taken."""
    taken: set[str] = set()
    reward = value.get("reward")
    if isinstance(reward, (int, float)):
        draft.meta["reward"] = float(reward)
        taken.add("reward")
    for name in NAMES:
        found = plain_score(value.get(name))
        if found is not None:
            draft.score(name, found)
            taken.add(name)
    scores = value.get("scores")
    if isinstance(scores, dict) and scores and take_scores(scores, draft):
        taken.add("scores")
    elif isinstance(scores, list) and scores:
        named = [one for one in scores if isinstance(one, dict) and isinstance(one.get("name"), str)]
        for one in named:
            score = plain_score(one.get("value"), one.get("score"), one.get("label"), one.get("stringValue"))
            if score is not None:
                draft.score(one["name"], score, one.get("comment", one.get("explanation")))
        if len(named) == len(scores):
            taken.add("scores")
    return taken


def take_scores(scores: dict[str, Any], draft: Draft) -> bool:
    """Scores by name: plain values, or objects with a `value` or `score`. Whether all were taken."""
    whole = True
    for name, one in scores.items():
        inner = as_dict(one)
        found = plain_score(one, inner.get("value"), inner.get("score"))
        if found is None:
            whole = False
            continue
        draft.score(name, found, as_text(inner.get("comment", inner.get("explanation"))) or None)
    return whole


def listed(value: Any) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [one for one in as_list(value) if isinstance(one, dict)]
