"""Export: the duties as people left them, as a new file; the source is never touched.

A policy becomes a policy again, with the next version; retired duties stay in it for the record, and the header says
who changed what and why (comments of the source are not kept). A labelled file becomes one without the items that were
retired, with the edited ones in their places and weights that sum to 1 again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cm2.assure.audit.book import Book
from cm2.assure.audit.case import Change, Subject
from cm2.assure.audit.report import policy_of
from cm2.checklist import Checklist, Item, Task, validate
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import RowWriter, detect_format, read_rows, read_task, write_task
from cm2.policy import Policy
from cm2.policy.load import read_policy


class Exported(msgspec.Struct):
    """What was written."""

    output: str
    version: str
    duties: int
    edited: list[str]
    approved: list[str]
    retired: list[str]


def export_policy(book: Book, output: str, version: str | None = None) -> Exported:
    """Write the policy as it stands.

    Args:
        book: an audit of a policy.
        output: a file that does not exist.
        version: of the new policy; the next one where None.

    Raises:
        ConfigError: the output exists, or the audit is of no policy.
    """
    policy = policy_of(book)
    if policy is None:
        fix = "use cm2 audit export-checklists"
        raise ConfigError("the audited logs were judged by checklists, not by a policy", fix=fix)
    _fresh(output)
    subjects = book.subjects()
    value = msgspec.to_builtins(policy)
    value["duties"] = [_duty(one) for one in subjects]
    value["version"] = version or _next(policy.version)
    made = read_policy(value, Where(file=output))
    text = _header(book, policy, made) + yaml.dump(
        msgspec.to_builtins(made), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110
    )
    draft = Path(f"{output}.{os.getpid()}.partial")
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.write_text(text, encoding="utf-8")
        os.link(draft, output)  # unlike a rename it never replaces a file that somebody made meanwhile
    except FileExistsError as error:
        raise _exists(output) from error
    finally:
        draft.unlink(missing_ok=True)
    return _exported(output, made.version, len(made.duties), subjects)


def export_checklists(book: Book, tasks: str, output: str, on_error: Callable[[int, str], None]) -> Exported:
    """Write a labelled file anew with the items as they stand.

    Args:
        book: an audit of checklists.
        tasks: the labelled file.
        output: a file that does not exist.
        on_error: is told of rows that do not read (they are left out), by line.

    Raises:
        ConfigError: the output exists, or the audit is of a policy.
        DataError: an item that was changed is not in the file, or is broken after the change.
    """
    if policy_of(book) is not None:
        raise ConfigError("the audited logs were judged by a policy", fix="use cm2 audit export-policy")
    _fresh(output)
    touched = {one.key: one for one in book.subjects() if one.edited or one.status == "retired"}
    left = set(touched)
    rows = 0
    with RowWriter(output) as writer:
        for row in read_rows(tasks):
            if row.value is None:
                on_error(row.line, row.error or "is empty")
                continue
            try:
                task = read_task(row.value)
            except DataError as error:
                on_error(row.line, error.message)
                continue
            where = Where(file=tasks, line=row.line, dialogue=task.dialogue.id)
            task.checklists = [_checklist(one, task, touched, left, where) for one in task.checklists]
            writer.write(write_task(task, detect_format(row.value)))
            rows += 1
        if left:
            key = msgspec.json.decode(sorted(left)[0])
            where = Where(file=tasks, dialogue=str(key[0]), turn=key[1], item=str(key[3]))
            raise DataError("an item that was changed is not there", where=where, fix="pass the file that was audited")
    return _exported(output, "", rows, list(book.subjects()))


def _checklist(
    checklist: Checklist, task: Task, touched: dict[str, Subject], left: set[str], where: Where
) -> Checklist:
    items = []
    changed = False
    for item in checklist.items:
        key = msgspec.json.encode([task.dialogue.id, checklist.turn, checklist.variant, item.id]).decode()
        subject = touched.get(key)
        left.discard(key)
        if subject is None:
            items.append(item)
            continue
        changed = True
        if subject.status != "retired":
            items.append(msgspec.convert(subject.spec, Item))
    if not changed:
        return checklist
    there = {item.id for item in items}
    items = [msgspec.structs.replace(item, depends_on=[id for id in item.depends_on if id in there]) for item in items]
    made = msgspec.structs.replace(checklist, items=items).normalised()
    known = {(one.rule, one.item) for one in validate(checklist, task.dialogue)}
    for violation in validate(made, task.dialogue):
        if (violation.rule, violation.item) not in known:
            raise DataError(f"{violation.rule}: {violation.message}", where=violation.where(where))
    return made


def _duty(subject: Subject) -> dict[str, Any]:
    spec = {name: value for name, value in subject.spec.items() if name != "status"}
    return {**spec, "status": "retired"} if subject.status == "retired" else spec


def _exported(output: str, version: str, count: int, subjects: list[Subject]) -> Exported:
    return Exported(
        output,
        version,
        count,
        [one.key for one in subjects if one.edited],
        [one.key for one in subjects if one.status == "approved"],
        [one.key for one in subjects if one.status == "retired"],
    )


def _next(version: str) -> str:
    """The version after this one: its last number and one more."""
    found = re.search(r"(\d+)(\D*)$", version)
    if found is None:
        return f"{version}-2" if version else "2"
    return f"{version[: found.start()]}{int(found[1]) + 1}{found[2]}"


def _header(book: Book, before: Policy, after: Policy) -> str:
    lines = [f"{before.name}, version {after.version}: made by cm2 audit export-policy from version {_said(before)}."]
    for change in book.changes("duty"):
        lines.append(f"{change.at[:10]} {change.reviewer}: {change.action} {change.target}{_why(change)}")
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _said(policy: Policy) -> str:
    return policy.version or "(none)"


def _why(change: Change) -> str:
    return f": {change.reason}" if change.reason else ""


def _fresh(output: str) -> None:
    if os.path.exists(output):
        raise _exists(output)


def _exists(output: str) -> ConfigError:
    return ConfigError(f"{output} exists, and no source is overwritten", fix="give -o the name of a new file")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes text with several lines as a block."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
