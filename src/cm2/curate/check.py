"""One row against the rules of a profile."""

from __future__ import annotations

from typing import Any

from cm2.curate import rules
from cm2.curate.finding import Findings
from cm2.curate.flags import not_strict, oddities, sizes
from cm2.curate.profile import PROFILES, Profile
from cm2.curate.reading import Reading, read
from cm2.curate.seen import Seen
from cm2.curate.tools import tools_of
from cm2.curate.wire import Data, from_object
from cm2.errors import DataError
from cm2.formats.jsonlines import parse
from cm2.formats.tasks import read_task
from cm2.formats.wire import CHECKLISTS


class Checker:
    """The rules of one profile over the rows of one data set; it remembers what it saw, to tell duplicates."""

    def __init__(self, profile: Profile):
        self._profile = profile
        self._rules = [rule for names, rule in rules.ALL if not profile.rules.isdisjoint(names)]
        self._ids, self._dialogues = Seen(), Seen()

    def check(self, value: Data | dict[str, Any], text: bytes | None = None) -> Findings:
        """Everything found in a row. `text` is the line it was read from, if that is how it is going to be written."""
        found = Findings()
        try:
            data = from_object(value, found) if isinstance(value, dict) else value
            if data is not None:
                self._judge(data, found)
        except RecursionError:
            found.reject("limit", "something in the row is nested too deeply to look at")
        if isinstance(value, dict) and text is not None:
            not_strict(text, found)
        return found

    def _judge(self, data: Data, found: Findings) -> None:
        row = read(data, found)
        tools = tools_of(data)
        if tools.structure is not None and (row.calls or self._profile.tools or tools.broken):
            found.reject("structure", tools.structure, "tools")
        if data.checklists:
            _checklists(bytes(data.checklists), found)
        if found.violations:
            return
        found.flags += tools.flags
        sizes(row, self._profile.limits, found)
        for rule in self._rules:
            rule(row, tools, self._profile, found)
        oddities(row, found)
        self._duplicates(data, row, found)

    def _duplicates(self, data: Data, row: Reading, found: Findings) -> None:
        id = data.uuid if data.id is None else data.id
        if isinstance(id, (str, int)) and self._ids.before(id):
            found.flag("duplicate_id", f"an earlier row has the id {id!r}", "id")
        said = (row.shape, *row.texts, *[call.name for call in row.asked], *[call.text for call in row.asked])
        if row.shape and self._dialogues.before(said):
            found.flag("duplicate_dialogue", "an earlier row holds the same messages", "messages")


def _checklists(text: bytes, found: Findings) -> None:
    """Reject checklists that no later verb can read."""
    value, error = parse(text)
    try:
        if error is not None:
            raise DataError(error)
        read_task({"messages": [{"role": "user"}], CHECKLISTS: value})  # the row's own messages are looked at anyway
    except DataError as broken:
        path = broken.where.path if broken.where is not None else None
        found.reject("structure", broken.message, path or CHECKLISTS)


def check_row(value: dict[str, Any], profile: Profile = PROFILES["default"]) -> Findings:
    """Everything found in a single row, raw as it was read from a file."""
    return Checker(profile).check(value)
