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
from cm2.report.text import visible
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
    return fill("report.html.jinja", ["report.css"], ["theme.js", "report.js"], ["img-src data:"], page=page)


def fill(name: str, styles: list[str], scripts: list[str], allowed: list[str], **values: Any) -> str:
    """A template with its style sheets and scripts within, and a policy that allows these and nothing else.

    Args:
        name: of the template; it gets `policy`, `style` and `script`.
        styles: the style sheets, by file.
        scripts: the scripts, by file.
        allowed: further directives of the policy; one that begins with "script-src" is added to the script's own.
        values: what the template shows.
    """
    folder = resources.files("cm2.report") / "templates"
    style, script = ("".join(_text(folder, file) for file in files) for files in (styles, scripts))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: _text(folder, file)),
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
        "visible": visible,
    }
    sources = [one.removeprefix("script-src ") for one in allowed if one.startswith("script-src ")]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{digest(style)}'",
            " ".join((f"script-src '{digest(script)}'", *sources)),
            *(one for one in allowed if not one.startswith("script-src ")),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = environment.get_template(name)
    return template.render(policy=policy, style=Markup(style), script=Markup(script), **values)


def _text(folder: Any, name: str) -> str:
    return str((folder / name).read_text(encoding="utf-8"))


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
