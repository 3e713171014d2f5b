"""Svg: a matplotlib figure as an inline SVG that takes its colours from the page.

A figure is drawn in marker colours, one a role. Afterwards every style attribute (which the page's security policy
forbids) becomes plain attributes, and every marker colour a class, so that one drawing serves the light and the dark
theme. The text stays text, in the page's own fonts. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

ROLES = (
    "ink",
    "muted",
    "grid",
    "run0",
    "run1",
    "run2",
    "run3",
    "run4",
    "run5",
    "part0",
    "part1",
    "part2",
    "part3",
    "part4",
)
COLOURS = {role: f"#0102{index + 16:02x}" for index, role in enumerate(ROLES)}
"""Role -> the colour to draw it in."""
_ROLE_OF = {colour: role for role, colour in COLOURS.items()}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(?:href=\"#|url\(#)([\w.-]+)")
_FONT_SIZE = re.compile(r"([\d.]+)px")
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cm2",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 1,
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def settings() -> Any:
    """The context in which figures for `inline` are drawn."""
    return matplotlib.rc_context(RC)


def inline(figure: Figure, label: str) -> Markup:
    """The figure as an `<svg>` element.

    Args:
        figure: drawn in `COLOURS`, within `settings()`.
        label: what it shows, for those who cannot see it. It must have been made visible.
    """
    target = io.StringIO()
    with settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's fonts draw it, not matplotlib's
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(target.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    prefix = f"f{hashlib.sha256((label + target.getvalue()).encode()).hexdigest()[:10]}"
    referred = set(_REFERENCE.findall(target.getvalue()))
    for element in root.iter():
        _restyle(element)
        _rename(element, prefix, referred)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("class", "chart")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _restyle(element: ElementTree.Element) -> None:
    classes = []
    declared = [part.partition(":") for part in element.attrib.pop("style", "").split(";") if part.strip()]
    values = {name.strip(): value.strip() for name, _, value in declared}
    for name in ("fill", "stroke"):
        if name in element.attrib:
            values.setdefault(name, element.attrib.pop(name))
    for name, value in values.items():
        role = _ROLE_OF.get(value)
        if role is not None:
            classes.append(f"{name}-{role}")
        elif name == "font":
            size = _FONT_SIZE.search(value)
            element.set("font-size", size[1] if size else "10")
        else:
            element.set(name, value)
    if classes:
        element.set("class", " ".join(classes))


def _rename(element: ElementTree.Element, prefix: str, referred: set[str]) -> None:
    """Give the ids that something refers to names that no other figure of the page has; drop the others."""
    own = element.attrib.pop("id", None)
    if own in referred:
        element.set("id", f"{prefix}-{own}")
    for name in ("href", f"{{{_XLINK}}}href"):
        if element.attrib.get(name, "").startswith("#"):
            element.set(name, f"#{prefix}-{element.attrib[name][1:]}")
    if element.attrib.get("clip-path", "").startswith("url(#"):
        element.set("clip-path", f"url(#{prefix}-{element.attrib['clip-path'][5:]}")
