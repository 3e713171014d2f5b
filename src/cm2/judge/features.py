"""Features: what a light model sees of an item and of the state that it is asked about.

Two bags of named numbers:

- *words*: words and pairs of words of the duty (`q:`), words of the part of the turn that the duty looks at (`v:`),
words
  of the duty that stand there (`b:`) and that do not (`m:`), all by their presence;
- *signs*: shares and counts in [0, 1] that do not depend on vocabulary: how many of the duty's values, quotes and tools
  are found in what the agent did, whether the part is there at all, whether the turn is over, whether a tool failed …
  Each stands for itself, for the focus and for the kind of duty, so that a linear model can weigh it differently.

An item sees what a model that judges it is shown: of its turn calls, answers and replies up to the step, and private
thinking only if it looks at thinking. Names are hashed, so there is no vocabulary to store.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from scipy import sparse

from cm2.checklist import Item, part_of
from cm2.dialogue import Dialogue, Step
from cm2.judge.agreement import Floats
from cm2.judge.prospect import negative
from cm2.judge.statement import statement
from cm2.judge.text import fold
from cm2.judge.values import is_error
from cm2.judge.view import THINKING, has_part, has_reply

WORD_BITS, SIGN_BITS = 16, 12
MOST_WORDS = 400
"""Of a part; the latest ones are kept."""
Bag = dict[str, float]
_WORD = re.compile(r"[^\W_]+(?:[.:'_-][^\W_]+)*")
_QUOTED = re.compile(r"`([^`]{2,80})`|\"([^\"]{2,80})\"|'([^']{2,80})'(?!\w)")
_STOP = frozenset(
    "a an and any are as at be been by did do does for from has have if in into is it its no not of on only or same so"  # noqa: SIM905
    " step than that the their them then there this to turn was were which will with agent assistant user call calls"
    " tool tools reply visible value values must exactly state states".split()
)


def describe(item: Item, dialogue: Dialogue, turn: int, step: int) -> tuple[Bag, Bag]:
    """The words and the signs of an item in the state after a step."""
    steps = dialogue.turns[turn].steps[: step + 1]
    duty = f"{item.question}\n{item.pass_condition}"
    asked = words_of(duty)
    seen = [word for one in steps for word in words_of(part_of(one, item.focus_on))][-MOST_WORDS:]
    there = set(seen)
    about = [word for word in asked if word not in _STOP]
    question = words_of(item.question)
    words = dict.fromkeys(
        (
            *(f"q:{word}" for word in asked),
            *(f"q:{first} {second}" for first, second in itertools.pairwise(question)),
            *(f"v:{word}" for word in there),
            *(f"{'b' if word in there else 'm'}:{word}" for word in about),
        ),
        1.0,
    )
    plain = _signs(item, dialogue, turn, steps, duty, about, there)
    plain["last"] = float(step + 1 == len(dialogue.turns[turn].steps))
    groups = ("", f"{item.focus_on}/", f"{item.kind}/")
    return words, {f"{group}{name}": value for group in groups for name, value in plain.items() if value}


def _signs(
    item: Item, dialogue: Dialogue, turn: int, steps: Sequence[Step], duty: str, about: list[str], there: set[str]
) -> Bag:
    latest = steps[-1]
    said = " ".join(fold(part_of(one, item.focus_on)) for one in steps)
    replies = " ".join(fold(one.reply or "") for one in steps)
    answers = " ".join(fold(part_of(one, "tool.content")) for one in steps)
    values = sorted({word for word in about if any(char.isdigit() for char in word)})
    quotes = sorted({fold(next(filter(None, match))) for match in _QUOTED.findall(duty)})
    snippets = sorted({word for one in item.evidence for word in words_of(one.snippet) if word not in _STOP})
    calls = [call for one in steps for call in one.calls]
    called = {call.name for call in calls if call.valid}
    responses = [response for one in steps for response in one.responses]
    named = {tool.name for tool in dialogue.tools if tool.name in duty}
    answered = {
        call.name
        for one in steps
        for i, call in enumerate(one.calls)
        if (response := one.response_to(i)) is not None and not is_error(response)
    }
    found: Bag = {"bias": 1.0, "negative": float(negative(item))}
    for name, wanted, where in (
        ("words", about, there),
        ("values", values, said),
        ("quotes", quotes, said),
        ("evidence", snippets, there),
        ("values in reply", values, replies),
        ("values in answers", values, answers),
        ("tools called", named, called),
        ("tools answered", named, answered),
    ):
        found |= _share(name, wanted, where)
    over = has_reply(latest) and not latest.calls
    found |= {
        "part": float(any(has_part(one, item.focus_on) for one in steps)),
        "part now": float(has_part(latest, item.focus_on)),
        "over": float(over),
        "calls": _count(len(calls)),
        "malformed": _count(sum(not call.valid for call in calls)),
        "errors": _count(sum(is_error(response) for response in responses)),
        "step": _count(len(steps)),
        "length": _count(len(there)),
    }
    if over:
        reply = statement(latest.reply or "")
        stated = {f"{number:g}" for number, _ in reply.numbers}
        found |= {"asks": float(bool(reply.questions))} | _share("numbers grounded", stated, answers)
    if item.focus_on == THINKING:
        found["thinks"] = float(bool(latest.thinking))
    return found


def _share(name: str, wanted: Iterable[str], where: set[str] | str) -> Bag:
    """The share of what is wanted that is found, and whether all or none of it is; nothing where nothing is wanted."""
    each = [one in where for one in wanted]
    if not each:
        return {f"no {name}": 1.0}
    return {name: sum(each) / len(each), f"all {name}": float(all(each)), f"none of {name}": float(not any(each))}


def _count(n: int) -> float:
    return min(1.0, math.log1p(n) / math.log1p(50))


@lru_cache(maxsize=16384)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, folded, in order; numbers and codes are words."""
    return tuple(_WORD.findall(fold(text[-20_000:])))


def matrix(bags: Sequence[Bag], bits: int) -> sparse.csr_matrix:
    """Bags as rows of 2**bits columns; a name's column is a hash of it."""
    rows = [len(bag) for bag in bags]
    columns = [zlib.crc32(name.encode(errors="surrogatepass")) & ((1 << bits) - 1) for bag in bags for name in bag]
    values = [value for bag in bags for value in bag.values()]
    pointers = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
    found = sparse.csr_matrix((np.array(values, dtype=float), columns, pointers), shape=(len(bags), 1 << bits))
    found.sum_duplicates()
    return found


def idf_of(words: sparse.csr_matrix) -> Floats:
    """Inverse document frequency of each column: ln((1 + n) / (1 + df)) + 1."""
    seen = np.bincount(words.indices, minlength=words.shape[1])
    found: Floats = np.log((1 + words.shape[0]) / (1 + seen)) + 1
    return found


def weighted(words: sparse.csr_matrix, idf: Floats) -> sparse.csr_matrix:
    """TF-IDF with rows of length 1."""
    found = words @ sparse.diags(idf)
    length = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    scaled: sparse.csr_matrix = sparse.diags(1 / np.maximum(length, 1e-12)) @ found
    return scaled.tocsr()


def rows_of(described: Sequence[tuple[Bag, Bag]], idf: Floats) -> sparse.csr_matrix:
    """What the linear model multiplies: TF-IDF of the words beside the signs."""
    words = weighted(matrix([words for words, _ in described], WORD_BITS), idf)
    return sparse.hstack([words, matrix([signs for _, signs in described], SIGN_BITS)], format="csr")
