"""307 lines with 116 kinds of faults: each gets what its index expects, and none stops the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cm2.curate import FilterConfig, filter_file

FIRST_OF_TWO = (253, 255)
"""`duplicate_dialogue` and `duplicate_id` come in pairs; a stream can flag only the second of a pair."""
LENIENT = {
    "role_first_assistant",
    "think_missing",
    "content_null_with_tool_calls",
    "tool_response_invalid_json",
    "tool_response_plain_text",
    "tool_response_empty",
}
"""What the default profile allows (an odd response is flagged) and the published one refuses."""


@pytest.fixture(scope="module", params=["published", "default"])
def filtered(request, shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corrupted")
    paths = [str(folder / f"{name}.jsonl") for name in ("kept", "rejected", "flagged")]
    source = str(shared_data / "corrupted.jsonl.gz")
    summary = filter_file(FilterConfig(source, *paths, profile=request.param))
    kept, rejected, flagged = ([json.loads(line) for line in Path(path).read_bytes().splitlines()] for path in paths)
    rules = {row["line"]: {finding["rule"] for finding in row["violations"]} for row in rejected}
    flags = {row["line"]: {finding["rule"] for finding in row["flags"]} for row in flagged}
    index = {int(line): entry for line, entry in json.loads((shared_data / "corrupted_index.json").read_text()).items()}
    return request.param, summary, index, kept, rules, flags


def test_each_of_the_307_lines_gets_what_is_expected(filtered):
    profile, _, index, _, rules, flags = filtered
    wrong = []
    assert len(index) == 307
    for line, entry in index.items():
        fault, expect = entry["fault"], entry["expect"]
        found = rules.get(line, set())
        if profile == "default" and fault in LENIENT:
            fine = not found
        elif expect == "pass":
            fine = not found and line not in flags
        elif expect == "tolerate":
            fine = not found
        elif expect == "warn":
            fine = not found and (line in flags or line in FIRST_OF_TWO)
        else:
            fine = expect in found
        if not fine:
            wrong.append((line, fault, expect, found, flags.get(line)))
    assert wrong == []


def test_nothing_is_dropped(filtered):
    _, summary, index, kept, rules, flags = filtered
    blank = sum(entry["fault"] == "blank_line" for entry in index.values())
    assert summary.read == summary.kept + summary.rejected == len(kept) + len(rules) == len(index) - blank
    assert summary.flagged == len(flags) and not set(flags) & set(rules)
