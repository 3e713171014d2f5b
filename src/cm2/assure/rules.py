"""Rule: when a monitor raises an alert about a duty, when it clears it again, and what then happens.

A rule watches each duty that it names (or all of a severity) by itself, over a window of the dialogues in which the
duty was decided or could not be. After every such dialogue the rule is evaluated; with fewer than `least` of them it
says nothing. It raises when its condition holds in `hold` evaluations in a row, and clears when the opposite, at a
level of its own, holds as often: between both levels nothing changes, so that a rate which wavers about a threshold
does not send an alert a minute.

The rules file (YAML) holds `rules`, and the `webhooks` that they call. Secrets are never in it: it names environment
variables.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from cm2.assure.drift import Method
from cm2.checklist import Severity
from cm2.errors import ConfigError, Where
from cm2.textfile import read_yaml

When = Literal["below", "drop", "drift", "unscored", "failure"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DEFAULT_LEVEL: dict[str, float] = {"drop": 0.05, "unscored": 0.1}


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An address that is told of alerts: it rolls back, starts a retraining, opens a ticket."""

    url: str
    """http or https. Anything that travels further than this machine should be https."""
    secret_env: str | None = None
    """The environment variable with the key by which the body is signed (HMAC-SHA256), so that the receiver knows that
    it came from here. Without one nothing is signed."""
    headers_env: dict[str, str] = {}
    """Further headers, each with the environment variable that holds its value: `Authorization: ROLLBACK_TOKEN`."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    """Seconds until a try counts as failed."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=50)] = 8
    """Further tries, after 1, 2, 4 … seconds and never more than five minutes."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.url!r} is no address of a webhook", fix="give http(s)://HOST/PATH")
        if parts.username or parts.password:
            raise ConfigError("an address of a webhook holds a password", fix="name its variable under headers_env")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule; see the module."""

    name: str
    """Alerts and metrics call it so."""
    when: When
    """below: the pass rate is under `level`. drop: it is more than `level` under the baseline. drift: a detector says
    that it fell. unscored: more than `level` of the dialogues could not be decided. failure: `level` dialogues of the
    window failed (1 where nothing is said: every failure counts)."""
    duty: str | list[str] = []
    """Which duties; none: all, of `severity` where that is given."""
    severity: Severity | None = None
    """Which severity."""
    level: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Where it raises."""
    clear: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Where it clears. below: at this rate or better (default: `level`). drop, unscored: at this or less (default:
    half of `level`). failure: with so few failures in the window (default: 0)."""
    window: int | str = 200
    """Dialogues (200), or a time (90s, 30m, 12h, 7d) counted back from the newest."""
    least: Count = 20
    """Dialogues in the window below which nothing is said. `failure` needs 1."""
    hold: Count = 1
    """Evaluations in a row that it must hold, to raise and to clear."""
    sure: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    """below, drop: raise only where chance explains the difference with no more than this probability (exact binomial
    test; Fisher's against a baseline that was measured). It is asked anew after each dialogue: for a guarantee over
    all of them use `drift`."""
    baseline: Share | Count | None = None
    """drop, drift by cusum: the rate that is fine (0.97), or that the first so many dialogues tell (500). None: by
    `--baseline`, else the first 200."""
    method: Method = "adwin"
    """drift: adwin (needs the extra `monitor`) or cusum."""
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.002
    """drift by adwin: its confidence."""
    drop: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    """drift by cusum: the fall that matters."""
    every: Annotated[float, msgspec.Meta(gt=1)] = 10_000
    """drift by cusum: dialogues between two false alarms, on average."""
    log: bool = True
    """Say it on standard error."""
    escalate: str | None = None
    """Append the dialogues that failed to this queue (JSONL), for a person: relative paths are below the state folder.
    While the alert stands, every further one too."""
    webhooks: list[str] = []
    """Whom to tell, by name."""

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 80:
            raise ConfigError("a rule needs a name of at most 80 characters", fix="give it one")
        if self.when == "below" and (self.level is None or self.level > 1):
            raise ConfigError(f"rule {self.name}: `below` needs a level from 0 to 1", fix="write level: 0.95")
        if self.when in ("drop", "unscored") and (self.level or 0) > 1:
            raise ConfigError(f"rule {self.name}: the level is a share from 0 to 1", fix="write level: 0.05")
        wrong = self.clears < self.raises if self.when == "below" else self.clears > self.raises
        if wrong and self.when != "drift":
            fix = "clear where things are better than where it raises"
            raise ConfigError(f"rule {self.name}: it would clear ({self.clears:g}) what it raises", fix=fix)
        if self.sure is not None and self.when not in ("below", "drop"):
            raise ConfigError(f"rule {self.name}: `sure` is for below and drop", fix="take it out")
        _ = self.dialogues, self.seconds

    @property
    def raises(self) -> float:
        """The level at which it raises."""
        return self.level if self.level is not None else _DEFAULT_LEVEL.get(self.when, 1.0)

    @property
    def clears(self) -> float:
        """The level at which it clears."""
        if self.clear is not None:
            return self.clear
        return {"below": self.raises, "failure": 0.0}.get(self.when, self.raises / 2)

    @property
    def dialogues(self) -> int | None:
        """The window as a number of dialogues, None where it is a time."""
        if isinstance(self.window, str):
            return None
        if not 1 <= self.window <= 1_000_000:
            raise ConfigError(f"rule {self.name}: a window of {self.window} dialogues", fix="write 1 to 1000000")
        return self.window

    @property
    def seconds(self) -> float | None:
        """The window as a time, None where it is a number of dialogues."""
        if not isinstance(self.window, str):
            return None
        found = _SPAN.fullmatch(self.window.strip())
        if found is None or not float(found[1]):
            raise ConfigError(f"rule {self.name}: {self.window!r} is no window", fix="write 200, 30m, 12h or 7d")
        return float(found[1]) * _SECONDS[found[2]]

    @property
    def digest(self) -> str:
        """What tells the rule from another of its name: what it watches, not whom it tells."""
        told = {name: value for name, value in msgspec.to_builtins(self).items() if name not in _ACTIONS}
        return hashlib.blake2b(msgspec.json.encode(told, order="sorted"), digest_size=8).hexdigest()

    def watches(self, duty: str, severity: Severity | None) -> bool:
        """Whether the rule is about that duty."""
        named = [self.duty] if isinstance(self.duty, str) else self.duty
        if named and duty not in named:
            return False
        return self.severity is None or self.severity == severity


_ACTIONS = ("log", "escalate", "webhooks")


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rules file."""

    rules: list[Rule] = []
    webhooks: dict[str, Webhook] = {}
    window: Count = 200
    """Dialogues behind the pass rates that are shown as metrics."""

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        for rule in self.rules:
            if names.count(rule.name) > 1:
                raise ConfigError(f"{names.count(rule.name)} rules are called {rule.name}", fix="give each its own")
            for hook in rule.webhooks:
                if hook not in self.webhooks:
                    known = ", ".join(self.webhooks) or "none"
                    message = f"rule {rule.name}: there is no webhook {hook!r}"
                    raise ConfigError(message, fix=f"write it under webhooks; known: {known}")

    def unknown(self, duties: set[str]) -> list[str]:
        """Duties that rules name and that there are not."""
        named = {one for rule in self.rules for one in ([rule.duty] if isinstance(rule.duty, str) else rule.duty)}
        return sorted(named - duties)


def load_rules(path: str) -> Rules:
    """The rules in a YAML file.

    Raises:
        ConfigError: the file is absent or not as it should be.
    """
    where = Where(file=path)
    value = read_yaml(path, "pass rules as YAML", "check --rules")
    if not isinstance(value, dict):
        raise ConfigError("is no rules file", where=where, fix="write a mapping with a list `rules`")
    try:
        return msgspec.convert(value, Rules)
    except ConfigError as error:
        raise ConfigError(error.message, where=where, fix=error.fix) from error
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ConfigError(message, where=Where(file=path, path=place.strip(".`") or None), fix=_fix(place)) from error


def _fix(place: str) -> str:
    kind = Webhook if place.startswith(".webhooks") else Rule if place.startswith(".rules[") else Rules
    return f"the fields are {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"
