"""What an export makes of judged logs, and the summary of what it made."""

from __future__ import annotations

import msgspec

from cm2.assure.export_formats import FORMATS, KINDS, SUFFIX, Format, Kind, writer_of
from cm2.assure.export_standing import RANK
from cm2.checklist import Severity
from cm2.errors import ConfigError
from cm2.policy import Policy


class ExportConfig(msgspec.Struct, kw_only=True):
    """What to export, and for whom."""

    input: str
    """The dialogues that were judged."""
    verdicts: str
    """The store that `cm2 judge` wrote about them."""
    output: str
    """The file of rows."""
    kind: Kind = "sft"
    """What is trained."""
    form: Format = "trl"
    """Who trains."""
    policy: Policy | None = None
    """The duties, where it was judged by a policy."""
    checklists: str | None = None
    """The labelled file, where it was judged by another file's checklists; its dialogues are the tasks of `rl`."""
    blocking: Severity = "major"
    """The least severity whose fails block a dialogue."""
    until_failure: bool = False
    """sft: of a dialogue that fails, the turns before the first that does."""
    per_prefix: int = 1
    """preferences: pairs of one prefix at most."""
    thinking: bool = True
    """Whether private thinking is kept, where the format has a place for it."""
    format: str = "auto"
    """The format of the dialogues, when it cannot be told."""

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("form", FORMATS), ("blocking", [one for one in RANK if one])):
            if getattr(self, name) not in known:
                raise ConfigError(f"there is no {name} {getattr(self, name)!r}", fix=f"use {', '.join(known)}")
        writer_of(self.kind, self.form)
        if self.until_failure and self.kind != "sft":
            raise ConfigError("`until failure` is for sft", fix="leave it out")
        wanted = SUFFIX.get(self.form)
        if wanted is not None and not self.output.endswith(wanted):
            raise ConfigError(f"{self.form} reads {wanted}", fix=f"give -o a name that ends in {wanted}")


class Summary(msgspec.Struct, kw_only=True):
    """What was exported, and what was not."""

    dialogues: int = 0
    rows: int = 0
    cut: int = 0
    """sft: rows that hold a part of their dialogue."""
    messages: int = 0
    learnt: int = 0
    """Messages that are learnt."""
    left_out: dict[str, int] = {}
    """Dialogues (preferences: pairs) that are in no row, by reason."""
    mixed: int = 0
    """preferences: actions at a fork after which duties held and did not."""
    sampled: dict[str, int] = {}
    """preferences: what came of asking an endpoint."""
    duties: dict[str, int] = {}
    """rl: tasks by the duty that they are about."""
    whole: dict[str, int] = {}
    """rl: dialogues that fail a duty about the whole dialogue, of which no reward is made."""
    excluded: int = 0
    """Dialogues to which nothing may be near."""
    unreadable: int = 0
    problems: list[str] = []
    files: list[str] = []

    def leave(self, reason: str) -> None:
        """Count one that is in no row."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
