"""The fence by itself: an attacked dialogue has the structure of its clean twin, line by line."""

from __future__ import annotations

import re

import pytest

from cm2.llm.fence import PREFIX, Fence, neutral, stands
from injection.twins import HARMLESS, Attack, attacks, bases, place
from servers.reader import read

ATTACKS = attacks()
FENCE = Fence.make("a secret", "a task")
_STRUCTURE = re.compile(r"<<<|```|~~~|<\||\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?(?:s|think|tool_call)>")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_adds_no_structure(attack: Attack) -> None:
    text = attack.armed(FENCE.nonce)
    for dialogue in bases():
        clean, attacked = (place(dialogue, attack.place, words) for words in (HARMLESS, text))
        if clean is None or attacked is None:
            continue
        for tools in (True, False):
            before, after = (
                [line for line in FENCE.transcript(each, tools=tools).split("\n") if not line.startswith(PREFIX)]
                for each in (clean, attacked)
            )
            assert after == before
            reading = read(
                [
                    {"role": "system", "content": FENCE.rule},
                    {"role": "user", "content": f"Q\n{FENCE.transcript(attacked, tools=tools)}\nZ"},
                ]
            )
            assert reading.outside == [FENCE.rule, "Q", "Z"] and len(reading.blocks) == 1


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_the_text_of_an_attack_becomes_neutral_and_can_still_be_quoted(attack: Attack) -> None:
    text = attack.armed(FENCE.nonce)
    found = neutral(text, FENCE.nonce)
    assert neutral(found, FENCE.nonce) == found
    assert FENCE.nonce not in found and not _STRUCTURE.search(found)
    lines = [line for line in found.split("\n") if any(map(str.isalnum, line))]
    assert all(stands(line, text, FENCE.nonce) for line in lines)
    assert lines or attack.kind == "invisible"
