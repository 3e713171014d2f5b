"""A run made by hand: a demo folder with trainings, evaluations, dialogues and checklists, small and without chance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.rollout.trace import Failure, Rollout, encode
from cm2.verdict import Pointer, Verdict

CALLS, CONTENT, REPLY = "assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply"
SEARCH = '{"tables":[{"table_id":"tbl-4471","seats":4,"time":"19:30"}]}'
BOOKED = '{"booking_id":"bk-90213","table_id":"tbl-4471","status":"confirmed"}'


def checklists() -> list[Checklist]:
    """Two turns: find, book and tell; then decline."""
    return [
        Checklist(
            0,
            [
                Item(
                    "C0",
                    CONTENT,
                    "Did a search return the table at 19:30?",
                    "a response holds tbl-4471",
                    0.3,
                    kind="response",
                ),
                Item(
                    "C1",
                    CALLS,
                    "Is the table of the search booked for four people?",
                    "book_table with the id that the search returned and party_size 4",
                    0.4,
                    [],
                    [],
                    True,
                    ["C0"],
                    kind="call",
                ),
                Item(
                    "C2",
                    REPLY,
                    "Does the reply state the booking number?",
                    "bk-90213 in any spelling",
                    0.3,
                    kind="reply",
                ),
            ],
        ),
        Checklist(
            1, [Item("C0", REPLY, "Does the reply say that pets are not allowed?", "a clear no", 1.0, kind="reply")]
        ),
    ]


def verdict(turn: int, step: int, item: str, met: bool | None, reason: str = "", *evidence: Pointer) -> Verdict:
    return Verdict("t", turn, step, item, met, reason=reason, evidence=list(evidence))


def good(task: str, user: str = "A table for four at half past seven, please.") -> Rollout:
    """It does everything: R = 1."""
    call = '{"table_id":"tbl-4471","party_size":4}'
    steps = [
        Step(
            thinking="I should look for a free table before I promise anything.",
            calls=[ToolCall("find_tables", {"time": "19:30", "seats": 4}, "a")],
            responses=[ToolResponse(SEARCH, "a", "find_tables", "replayed")],
        ),
        Step(
            calls=[ToolCall("book_table", {"table_id": "tbl-4471", "party_size": 4}, "b")],
            responses=[ToolResponse(BOOKED, "b", "book_table", "simulated")],
        ),
        Step(reply="Your table for four at 19:30 is booked. The booking number is bk-90213."),
    ]
    found = []
    for step in range(3):
        at = Pointer(0, 0, CONTENT, SEARCH)
        found.append(verdict(0, step, "C0", True, "find_tables returned it", at))
        called = Pointer(0, 1, CALLS, f"book_table({call})")
        found.append(
            verdict(
                0,
                step,
                "C1",
                step >= 1,
                "book_table was called" if step else "no call of book_table yet",
                *[called][: step >= 1],
            )
        )
        said = Pointer(0, 2, REPLY, "bk-90213")
        found.append(
            verdict(
                0, step, "C2", step == 2, "the reply states it" if step == 2 else "no reply yet", *[said][: step == 2]
            )
        )
    found.append(verdict(1, 0, "C0", True, "the reply says no", Pointer(1, 0, REPLY, "pets are not allowed")))
    turns = [Turn(user, steps), Turn("Can I bring my dog?", [Step(reply="I am sorry, pets are not allowed.")])]
    return Rollout(
        task,
        Dialogue(task, turns),
        checklists=checklists(),
        reference_turns=2,
        verdicts=found,
        reason="completed",
        owner="agent",
        generated_tokens=181,
        outcome={"success": True},
    )


def middling(task: str, user: str = "A table for four at half past seven, please.") -> Rollout:
    """It searches and then promises: C0 met, C1 not, C2 unscored, turn 1 not reached; R = 0.3 / 0.7 / 2."""
    rollout = good(task, user)
    first = rollout.dialogue.turns[0]
    reply = Step(reply="All done! Your table is booked, see you tonight.")
    rollout.dialogue.turns = [Turn(first.user, [first.steps[0], reply])]
    found = []
    for step in range(2):
        found.append(verdict(0, step, "C0", True, "find_tables returned it", Pointer(0, 0, CONTENT, SEARCH)))
        found.append(verdict(0, step, "C1", False, "book_table was never called"))
        found.append(verdict(0, step, "C2", None, "unscored: the item carries no check"))
    rollout.verdicts, rollout.reason, rollout.generated_tokens, rollout.outcome = (
        found,
        "strict",
        74,
        {"success": False},
    )
    return rollout


def poor(task: str, user: str = "A table for four at half past seven, please.") -> Rollout:
    """A malformed call, an error and an empty reply: R = 0."""
    rollout = middling(task, user)
    error = '{"error":"the arguments are not JSON: unexpected end"}'
    broken = Step(
        calls=[ToolCall("find_tables", None, "a", '{"time": "19:3', "unexpected end")],
        responses=[ToolResponse(error, "a", "find_tables", "error")],
    )
    rollout.dialogue.turns[0].steps = [broken, Step(reply="")]
    rollout.verdicts = [
        verdict(0, step, item, False, "nothing of the kind happened")
        for step in range(2)
        for item in ("C0", "C1", "C2")
    ]
    rollout.reason, rollout.generated_tokens = "empty_reply", 512
    return rollout


def failed(task: str) -> Rollout:
    """The simulator failed: worth nothing, never a zero."""
    rollout = middling(task)
    rollout.failure, rollout.reason, rollout.owner = (
        Failure("simulator", "no answer after 6 tries"),
        "simulator",
        "simulator",
    )
    return rollout


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = [encode(row) if isinstance(row, Rollout) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in body))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": max(0.0, mean - 0.07), "high": min(1.0, mean + 0.07)}


def summary(name: str, split: str, level: float) -> dict[str, Any]:
    def tally(items: int, share: float) -> dict[str, int]:
        passed = round(items * share)
        return {"items": items, "passed": passed, "failed": items - passed - 2, "unscored": 2}

    return {
        "name": name,
        "split": split,
        "mode": "greedy",
        "model": f"runs/demo/{name}/model",
        "tasks": 6,
        "rollouts": 6,
        "valid": 5,
        "reward": spread(level),
        "strict_pass": spread(level * 0.62),
        "outcome": spread(level * 0.7),
        "kinds": {
            "call": tally(210, level * 0.9),
            "response": tally(160, min(0.97, level * 1.1)),
            "reply": tally(190, level * 0.85),
            "no_write": tally(60, min(0.98, 0.5 + level / 2)),
            "refusal": tally(24, level * 0.5),
        },
        "reasons": {"completed": 3, "strict": 2},
        "failures": {"simulator": 1},
        "generated_tokens": round(9000 * level + 812),
    }


def write_run(folder: Path, trainings: bool = True) -> Path:
    """The whole of a demo folder; without the trainings, whose charts take their time, on wish."""
    levels = {
        ("start", "heldout"): 0.072,
        ("sft", "heldout"): 0.5413,
        ("rl", "heldout"): 0.6874,
        ("sft", "unseen"): 0.4127,
        ("rl", "unseen"): 0.5219,
    }
    users = [
        "A table for four at half past seven, please.",
        "Please book us in tonight: four people, 19:30.",
        "I need a table. Four of us, around 7:30 pm, and a dog.",
        "Table for 4, 19:30.",
        "Could you get me a table for four this evening at half past seven?",
        "Is anything free at 19:30 for four?",
    ]
    made = {
        "start": [poor] * 6,
        "sft": [middling, middling, good, poor, good, middling],
        "rl": [good, good, good, middling, middling, good],
    }
    for (name, split), level in levels.items():
        place = folder / "eval" / (name if split == "heldout" else f"{name}-unseen")
        write_json(place / "summary.json", summary(name, split, level))
        rollouts = [make(f"{split}-{n}", users[n]) for n, make in enumerate(made[name])]
        if name == "sft":
            rollouts[5] = failed(f"{split}-5")
        write_lines(place / "rollouts.jsonl", rollouts)
    if trainings:
        write_trainings(folder)
    write_json(
        folder / "rl" / "config.json", {"lr": 2e-5, "group": 8, "endpoint": {"api_key": "abcd1234efgh"}, "beta": 0.01}
    )
    for step in (1, 20, 40):
        group = [good("train-1"), middling("train-1"), poor("train-1"), good("train-2"), good("train-2")]
        for member, rollout in enumerate(group):
            rollout.member = member
        write_lines(folder / "rl" / "rollouts" / f"step-{step:05d}.jsonl", group)
    write_json(
        folder / "summary.json",
        {
            "verdict": "Reinforcement learning raised the checklist reward on held-out dialogues from 0.541 to 0.687 "
            "(difference +0.146, 95 % interval +0.061 to +0.231); on two domains never trained on from 0.413 to 0.522.",
            "comparison": [
                {
                    "split": "heldout",
                    "mode": "greedy",
                    "metric": "reward",
                    "before": 0.5413,
                    "after": 0.6874,
                    "difference": 0.1461,
                    "low": 0.0613,
                    "high": 0.2309,
                    "p": 0.0008,
                },
                {
                    "split": "heldout",
                    "mode": "greedy",
                    "metric": "strict_pass",
                    "before": 0.3356,
                    "after": 0.4262,
                    "difference": 0.0906,
                    "low": 0.0021,
                    "high": 0.1791,
                    "p": 0.0442,
                },
                {
                    "split": "unseen",
                    "mode": "greedy",
                    "metric": "reward",
                    "before": 0.4127,
                    "after": 0.5219,
                    "difference": 0.1092,
                    "low": -0.0103,
                    "high": 0.2287,
                    "p": 0.0731,
                },
            ],
            "seconds": 1531.4,
            "stages": [
                {"name": "worlds", "seconds": 21.3},
                {"name": "label", "seconds": 12.8},
                {"name": "sft", "seconds": 151.2},
                {"name": "rl", "seconds": 982.0},
                {"name": "evaluate", "seconds": 364.1},
            ],
        },
    )
    return folder


def write_trainings(folder: Path) -> None:
    """The metrics of SFT and RL."""
    sft = [
        {
            "step": n,
            "loss": 2.1 * math.exp(-n / 9) + 0.21 + 0.03 * (n % 3),
            "lr": 2e-4 * (1 - n / 36),
            "grad_norm": 1.2 + 0.4 * math.sin(n),
            "tokens_trained": 5200 + 31 * n,
            "seconds": 4.2,
            "seconds_forward": 1.5,
            "seconds_backward": 2.5,
        }
        for n in range(1, 37)
    ]
    write_lines(folder / "sft" / "metrics.jsonl", sft)
    rl = [
        {
            "step": n,
            "reward": 0.52 + 0.17 * n / 40 + 0.05 * math.sin(1.7 * n),
            "strict_pass": 0.3 + 0.2 * n / 40 + 0.04 * math.cos(2.1 * n),
            "outcome": 0.33 + 0.2 * n / 40 + 0.05 * math.sin(2.9 * n),
            "kl": 0.0004 * n + 0.0002 * (n % 4),
            "entropy": 0.62 - 0.006 * n,
            "grad_norm": 0.31 + 0.05 * math.sin(n),
            "lr": 2e-5,
            "tokens_generated": 11000 + 40 * n,
            "tokens_trained": 9000 + 40 * n,
            "groups_without_signal": n % 4,
            "failures": int(n % 9 == 0),
            "seconds": 24.5,
            "seconds_rollout": 14.2,
            "seconds_judge": 0.6,
            "seconds_forward": 3.9,
            "seconds_backward": 5.1,
        }
        for n in range(1, 41)
    ]
    write_lines(folder / "rl" / "metrics.jsonl", rl)
