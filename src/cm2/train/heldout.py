"""Heldout: a small fixed set of tasks that is rolled out again and again while a run trains on others.

The same tasks, worlds and draws every time, greedy by default, judged by the training judge without its probes: two
evaluations differ by their weights only, and are compared task by task (`cm2.train.best`). The weights that train are
not touched, and no draw of the training is used up: a run gives the same numbers with it and without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cm2.checklist import Task
from cm2.credit import Credit
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.rollout.trace import Rollout
from cm2.train.best import Best, Look, heldout_tasks, numbers_of
from cm2.train.feedback import Feedback
from cm2.train.rl_config import RlConfig
from cm2.train.roll import Roller
from cm2.train.runs import Run
from cm2.train.tasklist import read_all
from cm2.worlds import outcome_for

SEED = 7_919_000_003
"""Worlds and draws of evaluations are none of the training's."""


class Heldout:
    """See the module; without `heldout` in the settings it does nothing.

    Args:
        run: the run, after `Run.resume_to`.
        config: the run's settings.
        driver: decodes; it is lent for an evaluation and given back as it was.
        feedback: who judges and answers.
        model: gives the model that trains.
        tokenizer: saved with the best model.
        resumed: the step that the run goes on from.
        first: whether this process is the one that writes; the others do nothing here.

    Raises:
        DataError: the held-out tasks are trained on too, or have no checklists.
    """

    def __init__(
        self,
        run: Run,
        config: RlConfig,
        driver: Any,
        feedback: Feedback,
        model: Callable[[], Any],
        tokenizer: Any,
        resumed: int,
        first: bool = True,
    ):
        self.run, self.config, self.driver, self.model, self.tokenizer = run, config, driver, model, tokenizer
        self.tasks: list[Task] = []
        self._resumed = resumed
        if config.heldout is None or not first:
            return
        found = read_all(config.heldout, config.format, config.heldout_tasks).tasks
        self.tasks = heldout_tasks(found, feedback.tasks, config.heldout)
        self.best = Best(run, resumed)
        self._sampling = Sampling(
            temperature=config.heldout_temperature,
            max_step_tokens=config.max_step_tokens,
            max_tokens=config.max_tokens,
            seed=config.seed,
        )
        self._roller = Roller(
            driver,
            Credit(reading=config.reading),  # the method's own reward, whatever a curriculum pays at the moment
            group=1,
            limits=Limits(turns=config.max_turns, steps=config.max_steps),
            judge=feedback.plain,
            world=feedback.world,
            outcome=outcome_for if config.simulator.kind == "auto" else None,
        )

    def start(self) -> None:
        """Evaluate the start of a run that has just begun."""
        if self.tasks and not self.best.looks:
            self._look(self._resumed)

    def after(self, step: int) -> dict[str, Any]:
        """What the metrics tell of the evaluation after this step, where one is due."""
        last = step >= self.config.updates
        if not self.tasks or (step % self.config.evaluate_every and not last):
            return {}
        began = time.perf_counter()
        look = self._look(step)
        return numbers_of(look, self.best.best) | {"seconds_heldout": round(time.perf_counter() - began, 3)}

    def end(self, step: int) -> dict[str, Any]:
        """Evaluate the end, where it was not; what the summary tells."""
        if not self.tasks:
            return {}
        if not self.best.looked(step):
            self._look(step)
        best, first, last = self.best.best, self.best.looks[0], self.best.looks[-1]
        assert best is not None
        return {
            "best": str(self.best.folder),
            "best_step": best.step,
            "best_heldout_reward": best.reward,
            "start_heldout_reward": first.reward,
            "last_heldout_reward": last.reward,
        }

    def _look(self, step: int) -> Look:
        lent = {name: getattr(self.driver, name) for name in ("sampling", "lead") if hasattr(self.driver, name)}
        try:
            self.driver.sampling = self._sampling
            if "lead" in lent:  # a driver that meets the other processes: here they are not, they wait for the result
                self.driver.lead = lambda work: work()
            self.driver.update_weights(self.model())
            groups = self._roller.roll(self.tasks, SEED + self.config.seed)
        finally:
            for name, value in lent.items():
                setattr(self.driver, name, value)
        rollouts: list[Rollout] = [one for group in groups for one in group]
        if (saved := self.run.last_checkpoint()) is not None:
            self.best.covered(saved[0])
        return self.best.take(step, rollouts, self.model(), self.tokenizer)
