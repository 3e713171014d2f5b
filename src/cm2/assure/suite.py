"""Suite: what a gate asks of an agent, as one YAML file that lies beside the code.

It names who is looked at (a file of runs, or an endpoint that runs the suite's tasks in the simulated environment), by
which duties (a policy, or checklists of labelled tasks, or both), and what may not happen: thresholds for each
severity and duty, a share that may stay unscored, and a baseline that no duty may significantly fall below. Paths are
relative to the suite's file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cm2.checklist import Severity
from cm2.errors import ConfigError, Where
from cm2.judge.judging import Judging
from cm2.llm import Endpoint
from cm2.rollout.limits import Limits
from cm2.simulate.config import SimulatorConfig
from cm2.textfile import read_yaml

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Level = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Many = Annotated[int, msgspec.Meta(ge=1)]
Tolerate = Literal["any", "known", "none"]
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor")


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the duties of one severity, or of one duty. A field that is left out asks nothing, or what the
    severity asks."""

    min_pass_rate: Share | None = None
    """Mean over the cases (one duty in one dialogue) of the share of runs that pass."""
    max_fails: Count | None = None
    """How many cases may fail."""
    max_unscored: Share | None = None
    """Runs that could not be judged, of those in which the duty applies. Above it nothing is known: undecided."""
    flaky: Tolerate | None = None
    """Which flaky cases are not counted as failing. known: those that the baseline or the history has seen pass and
    fail under one version. any: also those that do so for the first time. none: none."""


DEFAULTS: dict[Severity, Threshold] = {
    "critical": Threshold(max_fails=0, max_unscored=0.0, flaky="known"),
    "major": Threshold(flaky="any"),
    "minor": Threshold(flaky="any"),
}
"""What is asked where a suite says nothing: no critical duty fails, and none of them stays unjudged."""


class Suite(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """See the module."""

    name: str = "gate"
    """What results and annotations call it."""
    dialogues: str | None = None
    """Runs of the agent: dialogues, or a store of `cm2 rollout`. Rows that share an id are runs of one task."""
    runs_of: str | None = None
    """The field of a dialogue's `meta` that names its task, where each run has an id of its own."""
    format: str = "auto"
    """The format of `dialogues` and `tasks`, when it cannot be told from the rows."""
    endpoint: Endpoint | None = None
    """Who is the agent, where the gate makes the runs itself."""
    system: str | None = None
    """With an endpoint: the system prompt in place of the tasks' own, as text, or a file that ends in .md or .txt."""
    repeats: Many = 1
    """With an endpoint: runs of each task. Several show which cases are flaky."""
    concurrency: Many = 16
    """Runs, or requests of a judge, under way at once."""
    seed: int = 0
    """Varies the simulated world and the endpoint's sampling."""
    limits: Limits = Limits()
    """With an endpoint: when a run ends at the latest."""
    simulator: SimulatorConfig = SimulatorConfig()
    """With an endpoint: what answers calls that the tasks did not record."""
    tasks: str | None = None
    """Labelled dialogues: what an endpoint runs, and checklists of dialogues with the same ids."""
    policy: str | None = None
    """Duties that hold in every dialogue (YAML)."""
    verdicts: str | None = None
    """A store that `cm2 judge` wrote about `dialogues`: nothing is judged again."""
    judging: Judging = Judging()
    """Who judges. Duties that it cannot decide are told, and are no failure."""
    models: str | None = None
    """The models file, where the judge or the simulator asks a model."""
    thresholds: dict[Severity, Threshold] = {}
    """What is asked of the duties of each severity; see `DEFAULTS`."""
    duties: dict[str, Threshold] = {}
    """What is asked of single duties, beside what their severity asks."""
    default_severity: Severity = "major"
    """The severity of items that have none, as those of labelled references."""
    max_unscored: Share = 0.05
    """See `Threshold.max_unscored`; of all duties together."""
    confidence: Level | None = None
    """None: a rate below its threshold fails. Else it fails only if the upper end of this interval is below it."""
    baseline: str | None = None
    """A stored result of this suite (`cm2 gate -o`). No duty may be significantly worse, and no critical case new among
    the failing ones."""
    alpha: Level = 0.05
    """Of the tests against the baseline and the history, for all of them together (Holm)."""
    history: str | None = None
    """JSON lines, one a gate: what is known of each case. Each gate appends to it."""
    history_runs: Many = 50
    """How many of its last lines are looked at."""
    detect: Share = 0.5
    """The fall of a flaky case's pass rate for which the needed repeats are told …"""
    power: Level = 0.8
    """… and how surely it is to be seen."""
    owner: str = ""
    """Who is mentioned in summaries for duties without an owner: `@org/team` is a mention, anything else a name."""
    owners: dict[str, str] = {}
    """Who answers for single duties, in place of what the policy says."""

    def threshold(self, severity: Severity) -> Threshold:
        """What is asked of a severity: the suite's fields, else the default's."""
        return _over(DEFAULTS[severity], self.thresholds.get(severity))

    def tolerates(self, severity: Severity, duty: str) -> Tolerate:
        """Which flaky cases of a duty are not counted as failing."""
        own = self.duties.get(duty)
        return (own.flaky if own else None) or self.threshold(severity).flaky or "any"


def _over(below: Threshold, above: Threshold | None) -> Threshold:
    if above is None:
        return below
    given = {name: getattr(above, name) for name in Threshold.__struct_fields__ if getattr(above, name) is not None}
    return msgspec.structs.replace(below, **given)


PATHS = ("dialogues", "tasks", "policy", "verdicts", "models", "baseline", "history")


def load_suite(path: str, flags: Mapping[str, Any] | None = None) -> Suite:
    """The suite in a file, and what flags say instead of it.

    Args:
        path: of the file (YAML or JSON).
        flags: fields of `Suite`; None is not given. `base_url` and `model` are the endpoint's. Paths among them are
            relative to the working folder.

    Raises:
        ConfigError: the file is absent or no mapping; a field is unknown, missing or wrong; fields contradict.
    """
    where = Where(file=path)
    value = read_yaml(path, "pass a suite as YAML")
    if not isinstance(value, dict):
        raise ConfigError("is no suite", where=where, fix="write a mapping, with lines like `policy: policy.yaml`")
    return read_suite(_flagged(_resolved(value, Path(path).parent), flags or {}), where)


def read_suite(value: dict[str, Any], where: Where = Where()) -> Suite:
    """A suite from plain values. Fails with ConfigError as `load_suite` does."""
    if unknown := sorted(str(name) for name in value if name not in Suite.__struct_fields__):
        fix = f"the fields are {', '.join(Suite.__struct_fields__)}"
        raise ConfigError(f"unknown field {', '.join(unknown)}", where=where, fix=fix)
    for name in ("thresholds", "duties"):
        _known(value.get(name), where.but(path=name))
    try:
        suite = msgspec.convert(value, Suite)
    except ConfigError as error:
        raise ConfigError(error.message, where=where, fix=error.fix) from error
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, place = str(error).partition(" - at `$.")
        raise ConfigError(message, where=where.but(path=place.rstrip("`") or None), fix="correct it") from error
    _consistent(suite, where)
    return suite


def _known(value: Any, where: Where) -> None:
    """A threshold's fields are told apart from a severity's name before anything else is said about them."""
    if not isinstance(value, dict):
        return
    fields = Threshold.__struct_fields__
    for name, threshold in value.items():
        if where.path == "thresholds" and name not in SEVERITIES:
            raise ConfigError(f"there is no severity {name!r}", where=where, fix=f"use {', '.join(SEVERITIES)}")
        for field in threshold if isinstance(threshold, dict) else ():
            if field not in fields:
                here = where.but(path=f"{where.path}.{name}")
                raise ConfigError(f"unknown field {field!r}", where=here, fix=f"the fields are {', '.join(fields)}")


def _consistent(suite: Suite, where: Where) -> None:
    def wrong(message: str, fix: str) -> None:
        raise ConfigError(message, where=where, fix=fix)

    if suite.dialogues is None and suite.endpoint is None:
        wrong("nobody is looked at", "name `dialogues` (runs of the agent) or an `endpoint`, or give --dialogues RUNS")
    if suite.dialogues is not None and suite.endpoint is not None:
        wrong("there are both dialogues and an endpoint", "keep one of them")
    if suite.endpoint is not None and suite.tasks is None:
        wrong("the endpoint has nothing to run", "name `tasks`: dialogues whose user turns are played")
    if suite.endpoint is None and (suite.system is not None or suite.repeats > 1):
        wrong("system and repeats are about an endpoint", "take them out, or name an endpoint")
    if suite.verdicts is not None and (suite.dialogues is None or (suite.policy is not None and suite.tasks)):
        wrong("verdicts are about `dialogues`, by a policy or by tasks", "name one of both")


def _resolved(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with paths that start at the folder. A system prompt that is a file is read."""
    found = dict(value)
    for name in PATHS:
        path = found.get(name)
        if isinstance(path, str) and "://" not in path:
            found[name] = os.path.normpath(folder / path)
    judging = found.get("judging")
    if isinstance(judging, dict) and isinstance(judging.get("classifier"), str):
        found["judging"] = {**judging, "classifier": os.path.normpath(folder / judging["classifier"])}
    system = found.get("system")
    if isinstance(system, str) and system.endswith((".md", ".txt")) and "\n" not in system:
        try:
            found["system"] = (folder / system).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            where = Where(file=str(folder / system))
            raise ConfigError("is no text file that can be read", where=where, fix="check `system`") from error
    return found


def _flagged(value: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: flag for name, flag in flags.items() if flag is not None}
    endpoint = {name: given.pop(name) for name in ("base_url", "model") if name in given}
    if "dialogues" in given:
        value = {name: one for name, one in value.items() if name not in ("endpoint", "system", "repeats")}
    if endpoint:
        before = value.get("endpoint")
        value = {name: one for name, one in value.items() if name not in ("dialogues", "verdicts")}
        value["endpoint"] = (before if isinstance(before, dict) else {}) | endpoint
    return value | given
