"""Feedback: what a training run's rollouts are answered and judged by, made from its settings.

Without a language model (the defaults) the judge is the compiled checks and tools are answered by a task's own world or
by replay and its fallback. With one, judge and simulator ask through the door (`cm2.llm`), while other rollouts are
decoded on; probes (`cm2.judge.probes`) keep an eye on the judge. A server that is down is waited for
(`cm2.train.outage`). Whatever fails for good is never a reward: the rollout leaves its group; an update in which
nothing is left, because nobody answers, stops the run at its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import msgspec
from rich.console import Console

from cm2.checklist import Task
from cm2.credit.config import Reading
from cm2.errors import CheckFailed, CM2Error, ConfigError
from cm2.judge import Judge
from cm2.judge.calibration import load as load_calibration
from cm2.judge.judging import Judging
from cm2.judge.make import SAMPLING, identity, make_judge
from cm2.judge.probes import Probes, Probing
from cm2.llm import Models, load_models
from cm2.rollout.trace import Rollout
from cm2.simulate.config import SimulatorConfig, simulated
from cm2.simulate.world import World
from cm2.train.alarms import Alarming, alarms
from cm2.train.outage import Outage, Patient
from cm2.worlds import world_for

_AGAIN = "mend that and run the same command: it goes on from the last checkpoint"


class Feedback(ExitStack):
    """See the module; a context manager that holds the doors open.

    Args:
        judging: who judges.
        simulator: who answers the tools.
        probing: what keeps an eye on the judge.
        models: file of the models that judge and simulate; needed where one of them asks.
        gold: the better judge of the probes.
        gold_models: file of the models that the gold judge asks.
        calibration: file of `cm2 judge calibrate` about the judge.
        cache: the answers' file where the models name none.
        tasks: what is trained on.
        reading: as rewards are read.
        seed: of the probes' draws.
        outage_minutes: how long a server that is down is waited for.
        alarming: when the run's own numbers are an alarm.
        moving: what a reward means changes during the run; see `cm2.train.alarms`.

    Attributes:
        judge, world: for a `Roller`.
        plain: the training judge without its probes, for what is not trained on.
        say: tells the person at the terminal a sentence.
        tasks: the tasks to roll, without the items that are held out.

    Raises:
        ConfigError: a model is needed and none is named, or a setting is wrong.
    """

    def __init__(
        self,
        judging: Judging,
        simulator: SimulatorConfig,
        probing: Probing,
        *,
        models: str | None,
        gold: Judging | None,
        gold_models: str | None,
        calibration: str | None,
        cache: str,
        tasks: Sequence[Task],
        reading: Reading,
        seed: int,
        outage_minutes: float = 0.0,
        alarming: Alarming = Alarming(on_alarm="off"),
        moving: bool = False,
    ):
        super().__init__()
        judging.during()
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.say = lambda text: console.print(f"cm2: {text}", markup=False)
        self.outage = Outage(60 * outage_minutes, self.say)
        self._waited = 0.0
        self._doors: list[Models] = []
        self._probing, self._alarming, self._moving = probing, alarming, moving
        self._stop: str | None = None
        self.alarmed: list[str] = []
        asks = judging.asks or simulator.kind == "llm"
        door = self._open(models, "models", cache) if asks else None
        judge: Judge = make_judge(judging, door if judging.asks else None)
        self.world: Callable[[Task, int], World]
        self.world = world_for if simulator.kind == "auto" else simulated(simulator, door)
        self.tasks = list(tasks)
        self.probes: Probes | None = None
        self.plain = judge
        if probing.on:
            better = None
            if gold is not None:
                better = make_judge(
                    gold, self._open(gold_models or models, "gold_models", cache) if gold.asks else None
                )
            known = load_calibration(calibration) if calibration is not None else None
            self.probes = Probes(probing, judge, tasks, gold=better, calibration=known, reading=reading, seed=seed)
            judge, self.tasks = self.probes.judge, self.probes.tasks
        self.judge = judge

    def _open(self, file: str | None, setting: str, cache: str) -> Models:
        if file is None:
            raise ConfigError("a language model is asked, and none is named", fix=f"give `{setting}: FILE.yaml`")
        config = load_models(file)
        if config.cache is None:
            config.cache = cache
        door = self.enter_context(Patient(config, self.outage, say=self.say))
        self._doors.append(door)
        return door

    def numbers(self, groups: Sequence[Sequence[Rollout]], update: int) -> dict[str, Any]:
        """What an update's feedback was like: calls and money so far, and what the probes saw.

        Raises:
            CM2Error: not one rollout of the update could be answered and judged, or no further one will be (a refused
                key, a budget that is reached).
        """
        everyone = [rollout for group in groups for rollout in group]
        failed = [rollout.failure for rollout in everyone if rollout.failure is not None]
        if hopeless := next((failure for failure in failed if failure.fatal), None):
            raise CM2Error(f"nobody answers any more: {hopeless.message}", fix=_AGAIN)
        if everyone and len(failed) == len(everyone):
            raise CM2Error(
                f"none of the {len(everyone)} rollouts of an update counts; the first: {failed[0].message}",
                fix=_AGAIN,
            )
        found: dict[str, Any] = {}
        if self._doors:
            total = [door.spent.total for door in self._doors]
            found["llm_calls"] = sum(one.calls for one in total)
            found["llm_reused"] = sum(one.reused for one in total)
            found["llm_failed"] = sum(one.failed for one in total)
            found["llm_cost"] = round(sum(door.spent.cost for door in self._doors), 6)
        if (waited := self.outage.total) > self._waited:
            found["seconds_outage"], self._waited = round(waited - self._waited, 3), waited
        if self.probes is not None:
            found |= self.probes.numbers(groups, update)
        return found

    def alarms(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The alarms of the last of these updates, for its record; they are said aloud too."""
        probed = [] if self.probes is None else [alarm.reason for alarm in self.probes.alarms(metrics)]
        own = [f"{alarm.sign}: {alarm.reason}" for alarm in alarms(metrics, self._alarming, self._moving)]
        found = [*probed, *own]
        for reason in found:
            Console(stderr=True, highlight=False).print(f"alarm: {reason}", markup=False)
        if probed and self._probing.on_alarm == "stop":
            self._stop = probed[-1]
        if own and self._alarming.on_alarm == "stop":
            self._stop = own[-1]
        self.alarmed += found
        return {"alarm": "; ".join(found)} if found else {}

    @property
    def stop(self) -> bool:
        """Whether an alarm asks for the end of the run."""
        return self._stop is not None

    @staticmethod
    def asked(judging: Judging, simulator: SimulatorConfig, models: str | None) -> dict[str, str]:
        """What a run's rewards and worlds rest on beside its settings: a run is not continued by another model."""
        judging.during()  # here too: nothing is begun yet
        if models is None:
            return {}
        door = SimpleNamespace(config=load_models(models))
        found = {"judge": identity(judging, [door])} if judging.asks else {}
        if simulator.kind == "llm":
            model = msgspec.to_builtins(door.config.of("simulator"))
            found["simulator"] = msgspec.json.encode({name: model[name] for name in SAMPLING}, order="sorted").decode()
        return found

    def check(self) -> None:
        """Fail where an alarm has ended the run.

        Raises:
            CheckFailed: it has.
        """
        if self._stop is not None:
            raise CheckFailed(self._stop, fix="look at the rollouts; the checkpoint is kept, on_alarm: note goes on")
