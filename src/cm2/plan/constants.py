"""Every number of the plan that is not arithmetic, in one table, each with where it comes from.

    cited     printed by somebody else, who is named
    measured  by a script or a run of this project, which is named
    derived   follows from cited numbers, and the row says how
    assumed   nobody measured it; change it and see what moves

`cm2 plan --constants` prints the table. Change one for a plan with `--set NAME=VALUE`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from cm2.errors import ConfigError

Kind = Literal["cited", "measured", "derived", "assumed"]


class Constant(msgspec.Struct, frozen=True):
    """One number and its source."""

    name: str
    value: float
    unit: str
    kind: Kind
    source: str


_DEMO = "`cm2 demo`, mean of 21 updates: 64 rollouts, 3,849 ids sampled, 3,069 computed, 18.8 + 9.8 + 9.7 s (2 cores)"
_LLAMA = "Llama 3 Herd of Models (arXiv 2407.21783), table 4: 38–43 % of the BF16 peak on H100"
_NEMO = "NeMo RL 0.4 performance summary, GRPO on DGX-H100: Qwen3-30B-A3B 925, Llama-3.1-8B 1,562 tokens/s/GPU"

TABLE: tuple[Constant, ...] = (
    Constant("mfu_train", 0.40, "of peak", "cited", _LLAMA),
    Constant("mfu_forward", 0.40, "of peak", "assumed", "as training: prefill has the same products"),
    Constant("moe", 0.25, "of a dense model's", "derived", f"{_NEMO}; x 3.35e9 and 8.03e9 active parameters"),
    Constant("mbu", 0.60, "of bandwidth", "assumed", "decoding reads weights and cache at this share of the peak"),
    Constant("engine_step", 0.004, "s", "assumed", "host time of one decode step of a serving engine"),
    Constant("refit", 25e9, "bytes/s", "assumed", "new weights into a serving engine, a copy of 16 bits each"),
    Constant("fragment", 0.10, "of memory", "assumed", "CUDA context, buffers, fragmentation"),
    Constant("serve_memory", 0.90, "of memory", "cited", "vLLM engine arguments: gpu_memory_utilization, default 0.9"),
    Constant("slots", 256, "requests", "assumed", "at once on a replica; vLLM's max_num_seqs, whose default varies"),
    Constant("longest", 2.0, "x mean", "assumed", "tokens of the longest rollout of a batch over the mean's"),
    Constant("spread", 0.5, "of mean", "assumed", "deviation of the time of an action or a call, in the simulation"),
    Constant("local_decode", 204.4, "ids/s", "measured", f"{_DEMO}; rollouts of 135M, tools included"),
    Constant("local_forward", 83.9, "GFLOP/s", "measured", f"{_DEMO}; 2 FLOP a parameter and id"),
    Constant("local_backward", 71.3, "GFLOP/s", "measured", f"{_DEMO}; 4 a trained parameter, 2 of the head's"),
    Constant("local_share", 0.241, "of ids", "measured", f"{_DEMO}; 12,735 ids of rollouts, prefixes shared"),
    Constant(
        "open",
        0.5,
        "of items",
        "measured",
        "docs/judge.md: what is satisfied already is half of the cost",
    ),
    Constant(
        "silent",
        0.13,
        "of groups",
        "measured",
        "`cm2 study`, three seeds, 24 updates each: 77 of 576 groups had no signal",
    ),
    Constant("judge_rules", 250, "tokens", "assumed", "system prompt, fences and form of a question to a judge"),
    Constant("judge_item", 80, "tokens", "assumed", "an item's question, condition and failure examples in a question"),
    Constant("judge_answer", 60, "tokens", "cited", "cm2.judge.judging: an entry of an answer is some 60 tokens"),
    Constant(
        "simulated", 0.27, "of calls", "measured", "docs/benchmarks.md: 492 of 1,803 calls had no recorded answer"
    ),
    Constant("simulator_prompt", 1500, "tokens", "assumed", "schema, recorded calls and what was simulated before"),
    Constant("unchecked", 0.25, "of items", "assumed", "items without a compiled check, where the judge is hybrid"),
    Constant("unsure", 0.30, "of items", "assumed", "items that a classifier leaves to the model"),
)


class Constants:
    """The table by name, with the changes of one plan."""

    def __init__(self, changes: Mapping[str, float] | None = None):
        self.changed = dict(changes or {})
        self._values = {row.name: row.value for row in TABLE}
        for name, value in self.changed.items():
            if name not in self._values:
                close = difflib.get_close_matches(name, self._values, 3) or sorted(self._values)
                raise ConfigError(f"there is no constant {name!r}", fix=f"did you mean {', '.join(close)}?")
            if not value > 0:
                raise ConfigError(f"constant {name} must be above 0, not {value}", fix="give a positive number")
        self._values |= self.changed

    def __getitem__(self, name: str) -> float:
        return self._values[name]


def parse(settings: Iterable[str]) -> dict[str, float]:
    """NAME=VALUE texts as changes.

    Raises:
        ConfigError: one is not of that form.
    """
    changes = {}
    for text in settings:
        name, mark, value = text.partition("=")
        try:
            changes[name.strip()] = float(value)
        except ValueError as error:
            raise ConfigError(f"{text!r} sets nothing", fix="write --set NAME=NUMBER") from error
        if not mark:
            raise ConfigError(f"{text!r} sets nothing", fix="write --set NAME=NUMBER")
    return changes
