"""Output: a session as verl's agent loops hand it over.

verl puts a rollout's reward on its last token. A checklist pays step by step, and a critic (PPO) wants to see that:
`as_dict` writes the step rewards at the last token of each step. They sum to R, so every number that verl prints of
rewards is the checklist reward.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from cm2.credit import Score
from cm2.rollout.trace import Rollout
from cm2.verl import NAME
from cm2.verl.record import encode, logprobs_of, mask_of, record_of, step_rewards
from cm2.verl.session import Played


class ChecklistOutput(AgentLoopOutput):
    """One rollout."""

    token_rewards: list[float] = []
    """One a token of the response."""

    def as_dict(self) -> dict[str, Any]:
        """The fields that go into verl's queue."""
        output: dict[str, Any] = super().as_dict()
        output.pop("token_rewards", None)
        output["rm_scores"] = torch.tensor(self.token_rewards, dtype=torch.float32)
        return output


def output_of(
    rollout: Rollout, score: Score, played: Played, versions: tuple[int | None, int | None], filler: int, room: int
) -> ChecklistOutput:
    """The output of a rollout that counts.

    Args:
        rollout: on the environment's record, with its segments.
        score: what it earned; its reward is not None.
        played: the session.
        versions: of the weights that sampled the first and the last action.
        filler: an id that stands, without a mask, where nothing was sampled: verl wants a response.
        room: tokens of a rollout; a prompt that is longer carries no loss and is cut.
    """
    record = record_of(rollout)
    response = [
        id for n, segment in enumerate(rollout.segments) for id in (segment.prompt if n else []) + segment.tokens
    ]
    if not response:
        response, record.length = [filler], 1
    extra: dict[str, Any] = {
        NAME: encode(record),
        "min_global_steps": versions[0],
        "max_global_steps": versions[1],
        "reward_extra_info": {"strict_pass": float(bool(score.strict_pass))},
        "turn_scores": [],
        "tool_rewards": [],
    }
    reward = score.reward
    assert reward is not None
    return ChecklistOutput(
        prompt_ids=played.prompt[: max(1, room - 1)],
        response_ids=response,
        response_mask=mask_of(record.spans, record.length),
        response_logprobs=logprobs_of(rollout.segments, record.spans, record.length),
        reward_score=reward,
        num_turns=sum(len(turn.steps) + 1 for turn in rollout.dialogue.turns),
        metrics=AgentLoopMetrics(generate_sequences=played.sampling, tool_calls=played.answering),
        extra_fields=extra,
        token_rewards=step_rewards(score, record.spans, record.length),
    )
