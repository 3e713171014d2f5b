"""ModelsConfig: which model answers in which role, where it is, how it samples, and what limits it.

`default` holds for every role; a role says only what differs and takes the rest from it. One file serves all verbs:

    default:
      base_url: [http://10.0.0.1:8000/v1, http://10.0.0.2:8000/v1]   # replicas of one model
      model: Qwen/Qwen3-32B
      key_variable: VLLM_KEY
    judge: {temperature: 0, effort: low}
    labeler: {base_url: https://api.openai.com/v1, model: gpt-5, key_variable: OPENAI_API_KEY, effort: high}

The same from Python: `ModelsConfig(default=RoleModel(...), judge={"effort": "low"})`. A setting that nobody knows, or a
value out of range, is an error when the configuration is made. Keys stay in the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from cm2.errors import ConfigError, Where
from cm2.llm.request import ROLES, Role
from cm2.textfile import read_yaml

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens."""

    input: NotNegative
    """Tokens of the prompt."""
    output: NotNegative
    """Tokens of the answer, thinking included."""
    cached: NotNegative | None = None
    """Tokens of the prompt that the provider's prefix cache had; None: as `input`."""

    def cost(self, prompt: float, cached: float, completion: float) -> float:
        """What these tokens cost; `cached` are those of `prompt` that were cached."""
        cached = min(cached, prompt)
        rate = self.input if self.cached is None else self.cached
        return ((prompt - cached) * self.input + cached * rate + completion * self.output) / 1e6


class RoleModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model of a role."""

    base_url: str | list[str] = ""
    """Where the API starts, with its version: http://127.0.0.1:8000/v1. A list names replicas of the same model."""
    model: str = ""
    """The model's name as the endpoint knows it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; when it is not set no key is sent, as local servers expect."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """0 is (nearly) greedy. None leaves the server's default, which reasoning models may insist on."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Nucleus sampling; None leaves the server's default."""
    max_tokens: AtLeastOne | None = None
    """Tokens of one answer, thinking included; an answer that is cut off is no answer. Set it where a budget is set: it
    bounds what a call may cost."""
    effort: str | None = None
    """Reasoning effort (low, medium, high …), sent as reasoning_effort. None sends none."""
    efforts: dict[str, dict[str, Any]] = {}
    """Body fields by effort, for servers that say it otherwise: {"none": {"chat_template_kwargs": {"enable_thinking":
    false}}}."""
    extra: dict[str, Any] = {}
    """Further fields of every request body, as the server knows them."""
    structured: Literal["auto", "schema", "prompt"] = "auto"
    """How JSON is asked for: by the server's JSON-schema mode, by the prompt alone, or (auto) by the mode until the
    server refuses it. Either way the answer is validated here."""
    seeded: bool = True
    """Send a seed with each request; an endpoint that refuses the field is asked without it."""
    repairs: Count = 1
    """Further questions after an answer that is not valid, each quoting what was wrong: the semantic budget."""
    retries: Count = 6
    """Further tries of a call that the provider failed: the provider's budget."""
    backoff: NotNegative = 0.5
    """Seconds before the first further try; doubled each time, drawn at random below that."""
    longest_wait: Positive = 60.0
    """No wait before a further try is longer, whatever Retry-After says."""
    timeout: Positive = 300.0
    """Seconds until a call counts as failed."""
    concurrency: AtLeastOne | None = None
    """Calls under way at each replica, at most; under rate limits it adapts below that. None: as `ModelsConfig`."""
    requests_per_minute: Positive | None = None
    """The account's limit, for each replica. None: only what the server says (429, Retry-After, x-ratelimit-…)."""
    tokens_per_minute: Positive | None = None
    """As above, for tokens of prompts and answers together."""
    price: Price | None = None
    """What it costs here. None: as the prices file says. An own server: {input: 0, output: 0}."""
    tokenizer: str = ""
    """A tokenizer.json, or a folder with one, that dry runs count with; else they estimate."""

    def __post_init__(self) -> None:
        for url in self.base_urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ConfigError(f"{_bare(url)!r} is no address of an endpoint", fix="give http(s)://HOST[:PORT]/v1")
        if len(set(self.base_urls)) != len(self.base_urls):
            raise ConfigError("the same base_url stands twice", fix="name each replica once")

    @property
    def base_urls(self) -> list[str]:
        """The replicas' addresses."""
        found = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        return [url.rstrip("/") for url in found if url]


Override = Any
"""A `RoleModel`, or a mapping of its settings (a union that msgspec does not convert)."""


class ModelsConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The models of all roles. A role given as a mapping inherits from `default`; as a `RoleModel` it stands alone."""

    default: Override = msgspec.field(default_factory=dict)
    """What holds for every role that does not say otherwise."""
    labeler: Override = msgspec.field(default_factory=dict)
    """Writes checklists from reference dialogues: few calls, the strongest model pays."""
    judge: Override = msgspec.field(default_factory=dict)
    """Decides items: many calls; calibrate it before a smaller one is trusted."""
    simulator: Override = msgspec.field(default_factory=dict)
    """Answers tool calls that nothing recorded fits."""
    filter: Override = msgspec.field(default_factory=dict)
    """Says of a dialogue whether its tool use makes sense."""
    compressor: Override = msgspec.field(default_factory=dict)
    """Rewrites thinking shorter."""
    concurrency: AtLeastOne = 64
    """Calls under way at each replica, for roles that do not say otherwise."""
    cache: str | None = None
    """The SQLite file of answers; verbs use OUTPUT.llm.sqlite where it is None. Runs and processes may share it."""
    prices: str | None = None
    """A YAML file of prices by model name that comes before the one in the package."""
    budget: NotNegative | None = None
    """US dollars that this run may spend; it stops before a call that could go beyond, and can be gone on with."""
    log: str | None = None
    """A JSONL file that every call is appended to, without secrets."""

    def __post_init__(self) -> None:
        for role in ROLES:
            self.of(role)

    def of(self, role: Role) -> RoleModel:
        """The model of a role, with what it inherits.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        mine = getattr(self, role)
        if isinstance(mine, RoleModel):
            return _convert(msgspec.to_builtins(mine), RoleModel, role)
        first = self.default if isinstance(self.default, dict) else msgspec.to_builtins(self.default)
        default = _convert(first, RoleModel, "default")
        return _convert(msgspec.to_builtins(default) | _plain(mine), RoleModel, role) if mine else default

    def ready(self, role: Role) -> RoleModel:
        """The model of a role that is about to be asked.

        Raises:
            ConfigError: it has no address or no name.
        """
        found = self.of(role)
        if not found.base_urls or not found.model:
            what = "base_url" if not found.base_urls else "model"
            raise ConfigError(
                f"the {role} has no {what}",
                fix="give --base-url URL and --model NAME, or a file with --models FILE that names them for "
                f"`default` or `{role}`",
            )
        return found


def load_models(path: str | None = None, settings: Iterable[str] = (), **values: Any) -> ModelsConfig:
    """The configuration in a YAML file, with settings from the command line above it.

    Args:
        path: the file; None starts from nothing.
        settings: `FIELD=VALUE` for every role or `ROLE.FIELD=VALUE` for one, values as in YAML.
        values: fields of `ModelsConfig`; a mapping for `default` or a role is laid over what the file says of it. None
            is no value.

    Raises:
        ConfigError: the file is absent or no mapping; a setting is unknown or out of range.
    """
    found = _read(path) if path is not None else {}
    try:
        for name, value in values.items():
            if isinstance(value, dict):
                found[name] = _mapping(found.get(name), name) | value
            elif value is not None:
                found[name] = value
        for setting in settings:
            _set(found, setting)
        return _config(found)
    except ConfigError as error:
        if path is None or error.where is not None:
            raise
        raise ConfigError(error.message, where=Where(file=path), fix=error.fix) from error


def _config(values: dict[str, Any]) -> ModelsConfig:
    _known(values, ModelsConfig, "")
    named = {name: _mapping(values.get(name), name) for name in ("default", *ROLES)}
    rest = {name: value for name, value in values.items() if name not in named}
    try:
        return msgspec.convert(rest | named, ModelsConfig, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, values, "") from error


def _convert(values: dict[str, Any], kind: type[RoleModel], role: str) -> RoleModel:
    values = _plain(values)
    _known(values, kind, role)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, values, role) from error


def _plain(values: Any) -> dict[str, Any]:
    return {str(name).replace("-", "_"): msgspec.to_builtins(value) for name, value in values.items()}


def _known(values: dict[str, Any], kind: type[msgspec.Struct], role: str) -> None:
    known = kind.__struct_fields__
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            fix = f"did you mean {near[0]}? " if near else ""
            of = f" of {role}" if role else ""
            raise ConfigError(f"unknown setting {name!r}{of}", fix=f"{fix}known ones: {', '.join(known)}")


def _invalid(error: msgspec.ValidationError, values: dict[str, Any], role: str) -> ConfigError:
    message, _, path = str(error).partition(" - at `$")
    path = path.strip(".`")
    value = values.get(path.split(".")[0])
    name = ".".join(part for part in (role, path) if part)
    if isinstance(error.__cause__, ConfigError):
        return ConfigError(error.__cause__.message, fix=error.__cause__.fix)
    told = f"setting {name}: {message}" + (f" (it is {value!r})" if isinstance(value, str | int | float) else "")
    return ConfigError(told, fix="correct it and run again")


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is no mapping of settings", fix=f"write {name}: {{model: NAME, …}}")
    return _plain(value)


def _set(found: dict[str, Any], setting: str) -> None:
    name, sign, text = setting.partition("=")
    role, dot, field = name.strip().replace("-", "_").rpartition(".")
    if not sign or not field:
        raise ConfigError(f"{setting!r} is no setting", fix="write FIELD=VALUE or ROLE.FIELD=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {name} is not YAML", fix="quote it") from error
    if not dot and field in ModelsConfig.__struct_fields__ and field not in ("default", *ROLES):
        found[field] = value
        return
    role = role or "default"
    if role not in ("default", *ROLES):
        raise ConfigError(f"there is no role {role!r}", fix=f"roles: default, {', '.join(ROLES)}")
    found[role] = _mapping(found.get(role), role) | {field: value}


def _read(path: str) -> dict[str, Any]:
    where = Where(file=path)
    found = read_yaml(path, "pass models as YAML", "check --models")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("is not a mapping of settings", where=where, fix="write `default: {base_url: …, model: …}`")
    return {str(name).replace("-", "_"): value for name, value in found.items()}


def _bare(url: str) -> str:
    """The address without user, password and query, for messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
