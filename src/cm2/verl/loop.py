"""Loop: the agent loop `cm2`, which plays a session for every rollout that verl asks for.

verl starts the rollouts of a prompt as tasks of one process, so they overlap: while a judge or a simulator is asked for
one, the others sample. A rollout that failed (judge, simulator, engine or data, never the agent), or of which nothing
could be scored, is handed over as no output at all: it is then in no group and no loss.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput

from cm2.dialogue import Dialogue
from cm2.errors import told
from cm2.rollout.environment import Environment
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Failure, Rollout
from cm2.train.roll import score_of
from cm2.verl.data import FIELD, task_of
from cm2.verl.output import output_of
from cm2.verl.session import Played, Sampled, play
from cm2.verl.setting import seed_of, setting_of, workshop

_templates: dict[int, ChatTemplate] = {}


class ChecklistLoop(AgentLoopBase):
    """See the module. verl makes one for every rollout."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput | list[AgentLoopOutput]:
        """Play the session of a row of `cm2.verl.data.Tasks`."""
        setting = setting_of(self.config)
        shop = workshop(setting)
        task = task_of(row[FIELD])
        group, member, step = str(row["uid"]), int(row.get("session_id", 0)), int(row.get("global_steps", 0))
        seed = seed_of(setting.seed, step, task.dialogue.id, member)
        versions: list[int | None] = []
        request = uuid4().hex  # one for all actions: verl then asks the replica that has their prefix in its cache

        template = template_of(self.tokenizer)

        async def sample(ids: list[int], room: int) -> Sampled:
            asked = sampling_params | {"max_tokens": room, "logprobs": True, "stop_token_ids": template.stop_ids}
            found = await self.server_manager.generate(request_id=request, prompt_ids=ids, sampling_params=asked)
            versions.extend(found.extra_fields.get(f"{end}_global_steps") for end in ("min", "max"))
            return Sampled(list(found.token_ids), list(found.log_probs or []))

        played = Played()
        try:
            environment = Environment(task, shop.world(group, task, step).session(), shop.judge, setting.limits)
            played = await play(
                environment,
                template,
                sample,
                max_step_tokens=setting.max_step_tokens,
                max_tokens=min(setting.max_tokens, self.rollout_config.get("max_model_len") or setting.max_tokens),
            )
            rollout = environment.record(group=group, member=member, seed=seed, segments=played.segments)
        except Exception as error:  # whatever a row or a world holds costs this rollout, and no sibling
            reason = Failure("data", told(error))
            rollout = Rollout(
                task.dialogue.id, Dialogue(task.dialogue.id), group, member, seed, reason="data", failure=reason
            )
        rollout.prompt_tokens = sum(len(segment.prompt) for segment in rollout.segments)
        rollout.generated_tokens = sum(len(segment.tokens) for segment in rollout.segments)
        rollout.seconds = round(played.sampling + played.answering, 3)
        score = score_of(rollout, setting.credit) if rollout.valid else None
        if score is not None:
            rollout.score = score.as_json()
        shop.keep(rollout)
        if score is None or score.reward is None:
            print(f"cm2: a rollout of {rollout.task} does not count: {_why(rollout)}", flush=True)
            return []
        first, last = (versions[0], versions[-1]) if versions else (step, step)
        return output_of(rollout, score, played, (first, last), template.stop_ids[0], setting.max_tokens)


def template_of(tokenizer: Any) -> ChatTemplate:
    """The checked chat template of this process's tokenizer."""
    if id(tokenizer) not in _templates:
        _templates[id(tokenizer)] = ChatTemplate(tokenizer)
    return _templates[id(tokenizer)]


def _why(rollout: Rollout) -> str:
    return "nothing of it was scored" if rollout.failure is None else rollout.failure.message
