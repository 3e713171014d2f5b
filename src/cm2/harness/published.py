"""Published: the numbers of the paper that a result may stand beside, and what differs from how they were made.

From arXiv 2602.12268: an 8B model, 64 GPUs. tau2-bench is the mean of four runs over its three domains; thinking is
kept in the history. Who played the user there, and at which commits the harnesses were, the paper does not say.
"""

from __future__ import annotations

import msgspec

from cm2.harness.results import Headline, Results

ROWS = ("cold-start SFT", "SFT on the RL data", "CM2", "best open baseline listed")
PAPER = "arXiv 2602.12268, 8B"
NUMBERS: dict[str, tuple[float, float, float, float]] = {
    "tau2": (18.59, 18.36, 26.76, 32.03),
    "multi_turn": (19.37, 26.75, 36.50, 37.00),
    "web_search": (14.00, 13.50, 27.50, 20.50),
    "toolsandbox": (56.19, 55.32, 68.20, 65.47),
}
IN_DOMAIN = 41.39
"""CM2 on tau2-bench with in-domain training data."""
TITLES = {
    "tau2": "tau2-bench",
    "multi_turn": "BFCL-V4 multi-turn",
    "web_search": "BFCL-V4 web search",
    "toolsandbox": "ToolSandbox",
}
RUNS = {"tau2": 4}
"""Repetitions that the paper's number is the mean of."""


class Beside(msgspec.Struct):
    """One headline and what was published for it."""

    name: str
    title: str
    headline: Headline
    published: dict[str, float]
    """Percent, by what it was that got it."""
    marks: list[str]
    """What differs."""


def beside(results: Results) -> list[Beside]:
    """Every headline of some results with the published numbers."""
    found = []
    for headline in results.headlines:
        numbers = dict(zip(ROWS, NUMBERS.get(headline.name, ()), strict=False))
        if headline.name == "tau2":
            numbers["CM2, in-domain data"] = IN_DOMAIN
        title = TITLES.get(headline.name, headline.name)
        found.append(Beside(headline.name, title, headline, numbers, marks(results, headline)))
    return found


def marks(results: Results, headline: Headline) -> list[str]:
    """What differs from the published run, most important first."""
    found = [] if headline.comparable else ["not comparable: not all of its tasks have a score"]
    found += results.differs
    runs = RUNS.get(headline.name, 1)
    if results.runs != runs and headline.name in RUNS:
        found.append(f"mean of {results.runs} run{'s' if results.runs > 1 else ''}, published of {runs}")
    if results.thinking != "keep":
        found.append("thinking is dropped from the history, published keeps it")
    if results.user_model is not None:
        found.append(f"the user is {results.user_model}; who it was in the paper is not said")
    found.append(f"harness {results.harness}; the paper names no version")
    return found
