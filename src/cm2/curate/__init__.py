"""Curation: from raw rows to rows worth training on. Rules say what is wrong; nothing is dropped silently."""

from cm2.curate.check import check_row
from cm2.curate.filter import FilterConfig, Summary, filter_file
from cm2.curate.finding import Finding, Findings
from cm2.curate.profile import PROFILES, RULES, Limits, Profile, make_profile

__all__ = [
    "PROFILES",
    "RULES",
    "FilterConfig",
    "Finding",
    "Findings",
    "Limits",
    "Profile",
    "Summary",
    "check_row",
    "filter_file",
    "make_profile",
]
