"""The page about policies names what there is: every variable, every function, every field."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from cm2.dialogue import Dialogue
from cm2.judge.expression import compiled
from cm2.judge.functions import FUNCTIONS
from cm2.judge.record import record
from cm2.judge.scope import state_of
from cm2.policy import Duty
from cm2.verdict import WHOLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
PROMPT = (ROOT / "src" / "cm2" / "policy" / "prompts" / "draft.txt").read_text(encoding="utf-8")


def test_every_function_is_on_the_page_and_no_other() -> None:
    table = PAGE.split("| function | |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)\(", table)) == set(FUNCTIONS)


def test_every_variable_is_on_the_page() -> None:
    table = PAGE.split("| variable | |")[1].split("\n\n")[0]
    for name in record(state_of(Dialogue("d"), WHOLE, WHOLE)):
        assert f"`{name}`" in table


def test_every_field_of_a_duty_is_on_the_page() -> None:
    table = PAGE.split("| field | |")[1].split("\n\n")[0]
    for field in msgspec.structs.fields(Duty):
        assert f"`{field.name}`" in table


def test_every_expression_on_the_page_compiles() -> None:
    block = PAGE.split("so look at the column.")[1].split("Where an expression")[0]
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    assert len(lines) == 5
    for line in lines:
        compiled(line)


def test_the_prompt_names_functions_that_there_are() -> None:
    told = PROMPT.split("They may call")[1].split("Integers and decimals")[0]
    own = {
        "size",
        "has",
        "all",
        "exists",
        "filter",
        "map",
        "matches",
        "contains",
        "startsWith",
        "timestamp",
        "duration",
    }
    assert set(re.findall(r"(\w+)\(", told)) - own <= set(FUNCTIONS)
    for cel in re.findall(r'"(?:applies_when|check)": "([^"]+)"', PROMPT):
        if "an expression" not in cel:
            compiled(cel)
