"""Page: one HTML file that needs nothing else and does nothing that it was not written to do.

Jinja escapes everything, always; the only markup that goes in unescaped are the charts, which an XML writer made. A
Content-Security-Policy allows this page's own style sheet and script by their hashes and nothing else: no request, no
frame, no form, no inline handler. The same input gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from cm2.report.cases import ENDS, TRAINING
from cm2.report.comparison import Difference, Group
from cm2.report.curves import Training
from cm2.report.timing import Split
from cm2.report.transcript import CaseView


class Tile(msgspec.Struct):
    """A number that the reader should see first."""

    label: str
    value: str
    exact: float
    note: str = ""


class Section(msgspec.Struct):
    """The cases of one section, and how many there would have been."""

    name: str
    available: int
    cases: list[CaseView]

    @property
    def choice(self) -> str:
        """By what rule the cases were chosen and ordered."""
        if self.name == TRAINING:
            return f"those whose reward varied most in the first and last {ENDS} updates"
        if max((len(case.columns) for case in self.cases), default=0) < 2:
            return "evenly from the lowest reward to the highest"
        return "evenly from the largest gain to the largest loss"


class Page(msgspec.Struct, kw_only=True):
    """Everything that stands on the page."""

    name: str
    headline: str
    tiles: list[Tile]
    groups: list[Group]
    differences: list[Difference]
    trainings: list[Training]
    splits: list[Split]
    stages: list[tuple[str, float]]
    sections: list[Section]
    settings: list[tuple[str, list[tuple[str, str]]]]
    absent: list[str]
    problems: list[str]
    problems_left_out: int = 0
    capped: str = ""

    @property
    def results(self) -> str:
        """What the section of numbers is called."""
        compared = self.differences or any(len(group.agents) > 1 for group in self.groups)
        return "Before and after" if compared else "Results"


def render(page: Page) -> str:
    """The page as HTML."""
    folder = resources.files("cm2.report") / "templates"
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "chance": chance,
        "percent": percent,
        "signed": signed,
        "duration": duration,
    }
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{digest(style)}'",
            f"script-src '{digest(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = environment.get_template("report.html.jinja")
    return template.render(page=page, policy=policy, style=Markup(style), script=Markup(script))


def digest(text: str) -> str:
    """A Content-Security-Policy source for an inline element of exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def number(value: Any, digits: int = 3) -> str:
    """A number for a person: whole ones whole, others with fixed places where their size is ordinary."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        power = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
        return power.replace("-", "−")
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def compact(value: float) -> str:
    """A count in three digits: 812, 9.4k, 473k, 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{0 if abs(value) >= 100 * size else 1}f}{letter}"
    return f"{value:.0f}"


def chance(p: float | None) -> str:
    """A p-value."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds for a person: 4.2 s, 3.3 min, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
