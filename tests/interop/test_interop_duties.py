"""What the adapters share, without any of the outside tools."""

from __future__ import annotations

from typing import Any

import pytest

from cm2.assure.outcomes import Judged
from cm2.check import Before, Called, NotCalled
from cm2.errors import DataError
from cm2.interop.duties import Duties, by_duty, lost, read_chat, told
from cm2.interop.langfuse import noted_place, send_scores
from cm2.policy import Duty, Policy

LOOK = Duty(id="look-first", question="Was the order looked up?", severity="critical", check=Called("get_order"))
NO_REFUND = Duty(id="no-refund", question="Was no refund made?", severity="minor", check=NotCalled(["refund"]))
ORDER = Duty(
    id="look-before-refund",
    question="Was the order looked up before the refund?",
    applies_when=Called("refund"),
    check=Before(Called("get_order"), Called("refund")),
)
ASK = Duty(id="polite", question="Is the agent polite?")
POLICY = Policy("shop", [LOOK, NO_REFUND, ORDER])


def talk(*calls: str) -> list[dict[str, Any]]:
    """A conversation in which these tools are called, one after the other."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "help"}, {"role": "user", "content": "my order"}]
    for number, name in enumerate(calls):
        call = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": '{"ok": true}'})
    return [*messages, {"role": "assistant", "content": "Done."}]


def test_messages_become_a_dialogue_with_its_calls():
    dialogue = read_chat(talk("get_order"), [{"type": "function", "function": {"name": "get_order"}}], "d")
    assert [call.name for *_, call, _ in dialogue.calls()] == ["get_order"]
    assert dialogue.tool("get_order") is not None and dialogue.id == "d"


def test_a_conversation_without_a_user_says_so():
    with pytest.raises(DataError, match="no message is of the user"):
        read_chat([{"role": "assistant", "content": "hello"}])


def test_outcomes_keep_apart_what_does_not_apply():
    outcomes = Duties(POLICY).outcomes(read_chat(talk("get_order")))
    assert by_duty(outcomes) == {"look-first": 1.0, "no-refund": 1.0, "look-before-refund": None}
    assert told(outcomes) == "all 2 duties that apply hold" and not lost(outcomes)


def test_a_failure_is_told_with_its_severity_and_reason():
    outcomes = Duties(POLICY).outcomes(read_chat(talk("refund", "get_order")))
    assert by_duty(outcomes) == {"look-first": 1.0, "no-refund": 0.0, "look-before-refund": 0.0}
    assert "no-refund: minor, failed: " in told(outcomes) and "look-before-refund: major, failed: " in told(outcomes)


def test_a_question_without_a_judge_is_lost_and_never_a_fail():
    outcomes = Duties(Policy("p", [ASK])).outcomes(read_chat(talk("get_order")))
    assert lost(outcomes) and by_duty(outcomes) == {"polite": None} and "polite: major, not decided" in told(outcomes)


class Client:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.flushed = 0

    def create_score(self, **score: Any) -> None:
        self.sent.append(score)

    def flush(self) -> None:
        self.flushed += 1


def judged(meta: dict[str, Any], *calls: str) -> Judged:
    dialogue = read_chat(talk(*calls), id="t1")
    dialogue.meta = meta
    return Judged(1, dialogue, "", Duties(POLICY).outcomes(dialogue))


def test_scores_go_to_the_trace_or_session_and_what_does_not_apply_stays():
    client = Client()
    here = judged({"import": {"format": "langfuse"}}, "get_order")
    session = judged({"import": {"format": "langfuse"}, "session": "s1"}, "refund")
    foreign = judged({}, "get_order")
    sent = send_scores(client, [here, session, foreign])
    assert (sent.dialogues, sent.without_place, sent.left_out, client.flushed) == (2, 1, 1, 1)
    values = {(s.get("trace_id"), s.get("session_id"), s["name"]): (s["value"], s["data_type"]) for s in client.sent}
    assert values == {
        ("t1", None, "look-first"): (1.0, "BOOLEAN"),
        ("t1", None, "no-refund"): (1.0, "BOOLEAN"),
        ("t1", None, "cm2"): (1.0, "NUMERIC"),
        (None, "s1", "look-first"): (0.0, "BOOLEAN"),
        (None, "s1", "no-refund"): (0.0, "BOOLEAN"),
        (None, "s1", "look-before-refund"): (0.0, "BOOLEAN"),
        (None, "s1", "cm2"): (0.0, "NUMERIC"),
    }
    assert sent.scores == len(client.sent) == 7


def test_sending_again_uses_the_same_ids_and_a_branch_has_no_place():
    first, second = Client(), Client()
    for client in (first, second):
        send_scores(client, [judged({"import": {"format": "langfuse"}}, "get_order")])
    assert [s["score_id"] for s in first.sent] == [s["score_id"] for s in second.sent]
    assert len({s["score_id"] for s in first.sent}) == 3
    branch = judged({"import": {"format": "langfuse", "branch": {"of": "t1"}}}, "get_order")
    assert noted_place(branch.dialogue) is None
