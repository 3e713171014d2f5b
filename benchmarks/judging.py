"""What judging by a model costs: calls, prompt tokens, and tokens prefilled, our schedules beside the published scheme.

    python benchmarks/judging.py                                    # real dialogues where $CM2_DATA is, else made ones
    python benchmarks/judging.py --dialogues 20 --groups 1 8 48
    python benchmarks/judging.py --vllm http://127.0.0.1:8000/v1 --model NAME     # and the time that a server takes
    python benchmarks/judging.py --json costs.json                  # the numbers, to keep

No model is needed: the judge is an oracle that decides each item by its check, as it stands in what the request shows.
Dialogues are labelled by the reference labeller and stripped of their checks, so that every item is open; one item in
hybrid judging that has a check costs nothing at all, which is not measured here.

Groups: each member goes the way of the reference and departs from it at each step with probability --differ (another
wording, another argument, a call made twice, a step left out). 0.25 gives in groups of 8 after the first turn as many
different views as were seen in groups of 8 that the demo's policy sampled at temperature 1 in turns of three steps
(0.72 of the members; Taskmaster-4 here: 0.73).

Tokens are those of the embedded model's tokenizer, over every line of the prompt. Prefilled are those that a perfect
prefix cache does not have: everything behind the longest beginning that any earlier request of the group (or the rules
that all share) began with. `published` asks one question per item and step, item in front of the history: every item
after every step, or (`satisfied skipped`) only what is not yet satisfied and could pay. `dialogue` judges each run when
it is over, with the items of the task in front of the record or (`items last`) behind it. `floor` is what no judge can
go below that reads every run and every item once: what the runs of a group begin with alike counts once.

Beside the real dialogues stands a made one of the size that the cost of judging is usually told for: 3 turns of 3 steps
and 6 items, a history of some 4,000 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from cm2.check import Called, CameFrom, Contains, Equals, Fact, NotCalled, Reply, Response
from cm2.checklist import Checklist, Item, Task, part_of
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError
from cm2.formats import read_tasks
from cm2.judge import decide
from cm2.judge.form import form, item_line
from cm2.judge.judge import judge_dialogue, wait
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.question import Question
from cm2.judge.view import View, sees_thinking
from cm2.label.reference import ReferenceLabeler
from cm2.llm import Answer, ChatClient, Endpoint, Request
from cm2.llm.fence import Fence, transcript
from cm2.worlds import MakeConfig, make

SOURCES = ("star_train", "taskmaster4", "taubench_airline_gpt4o")
MADE = "made, 3 x 3 x 6"
PUBLISHED, SKIPPED = "published", "published, satisfied skipped"
DIALOGUE, LAST = "dialogue", "dialogue, items last"
SCHEDULES = (PUBLISHED, SKIPPED, "item", "step", "turn", LAST, DIALOGUE)
OPENERS = ("Sure. ", "Of course! ", "Okay, ", "Alright: ", "Happy to help. ", "Got it. ", "Great, ", "No problem. ")


class Oracle:
    """Answers by the checks, about whichever run it is told to look at; keeps what it was asked."""

    secret = "the same for every run of this measurement"

    def __init__(self) -> None:
        self.requests: list[tuple[Request, Any]] = []
        self.run = Dialogue("none")
        self.items: dict[tuple[str, str], Item] = {}

    async def ask(self, request: Request, check: Any = None) -> Answer:
        """The true verdicts."""
        assert request.where is not None
        turn, upto = request.where.turn, request.where.step
        if turn is None:
            return self._all(request)
        steps = self.run.turns[turn].steps
        entries = []
        for planned in request.planned["verdicts"]:
            item = self.items[str(turn), planned["id"]]
            last = len(steps) - 1 if upto is None else upto
            held = range(last, last + 1) if upto is not None else range(last + 1)
            first = next((s for s in held if holds(item, self.run, turn, s)), None)
            decision: dict[str, Any] = {"first_step": first} if upto is None else {"holds": first is not None}
            quote = "" if first is None else quote_of(item, steps[: first + 1])
            entries.append({"id": planned["id"], "reason": planned["reason"], **decision, "quote": quote})
        value = {"verdicts": entries}
        self.requests.append((request, value))
        return Answer(value, model="oracle")

    def _all(self, request: Request) -> Answer:
        """The same about all turns."""
        entries = []
        for planned in request.planned["verdicts"]:
            place, id = planned["id"].split(".", 1)
            turn = int(place[1:])
            item, steps = self.items[str(turn), id], self.run.turns[turn].steps
            first = next((s for s in range(len(steps)) if holds(item, self.run, turn, s)), None)
            decision = {"turn": None if first is None else turn, "step": first}
            quote = "" if first is None else quote_of(item, steps[: first + 1])
            entries.append({"id": planned["id"], "reason": planned["reason"], **decision, "quote": quote})
        value = {"verdicts": entries}
        self.requests.append((request, value))
        return Answer(value, model="oracle")


def holds(item: Item, run: Dialogue, turn: int, step: int) -> bool:
    """What the check says."""
    try:
        return item.check is not None and decide(item.check, run, turn, step).met
    except DataError:
        return False


def quote_of(item: Item, steps: list[Step]) -> str:
    """Something that stands where it must."""
    texts = [part_of(step, item.focus_on) for step in reversed(steps)] + [step.reply or "" for step in reversed(steps)]
    return next((text for text in texts if any(map(str.isalnum, text))), "")[:120]


def members(reference: Dialogue, count: int, differ: float, seed: int) -> Iterator[Dialogue]:
    """A group: runs that go the reference's way and depart from it now and then."""
    for number in range(count):
        draw = random.Random(f"{seed} {reference.id} {number}")
        run: Dialogue = msgspec.convert(msgspec.to_builtins(reference), Dialogue)
        for turn in run.turns:
            turn.steps = [made for step in turn.steps for made in departed(step, draw, differ)] or turn.steps[-1:]
        yield run


def departed(step: Step, draw: random.Random, differ: float) -> list[Step]:
    """The step as a sibling would have it: mostly the same."""
    if draw.random() >= differ:
        return [step]
    if not step.calls:
        words = (step.reply or "").split()
        if draw.random() < 0.3:  # says less than it should
            words = words[: max(1, len(words) // 2)]
        return [Step(step.thinking, draw.choice(OPENERS) + " ".join(words) + draw.choice(("", "", " Anything else?")))]
    kind = draw.choice(("argument", "twice", "left out", "alone"))
    if kind == "left out":
        return []
    if kind == "argument":
        calls = [ToolCall(call.name, altered(call.arguments, draw), call.id) for call in step.calls]
        return [Step(step.thinking, step.reply, calls, step.responses)]
    failed = [ToolResponse('{"error": "service is busy"}', call.id, call.name) for call in step.calls]
    return [Step(step.thinking, step.reply, step.calls, failed), step] if kind == "twice" else [step, step]


def altered(arguments: Any, draw: random.Random) -> Any:
    """The arguments, one of them changed."""
    if not isinstance(arguments, dict) or not arguments:
        return arguments
    name = draw.choice(sorted(arguments))
    value = arguments[name]
    return arguments | {name: f"{value} {draw.randint(2, 9)}" if isinstance(value, str) else draw.randint(1, 9)}


class PrefixCache:
    """A cache that never forgets: knows how much of a prompt some earlier prompt began with."""

    def __init__(self, base: np.ndarray):
        self._seen: set[int] = set(self._hashes(base).tolist())

    @staticmethod
    def _hashes(ids: np.ndarray) -> np.ndarray:
        """A hash of every beginning of the prompt."""
        with np.errstate(over="ignore"):
            return np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * POWERS[: len(ids)], dtype=np.uint64)

    def read(self, ids: np.ndarray) -> int:
        """How many tokens have to be prefilled."""
        hashes = self._hashes(ids)
        low, high = 0, len(ids)
        while low < high:  # beginnings of what is known are known
            middle = (low + high + 1) // 2
            low, high = (middle, high) if int(hashes[middle - 1]) in self._seen else (low, middle - 1)
        self._seen.update(hashes[low:].tolist())
        return len(ids) - low


def powers(count: int) -> np.ndarray:
    """Powers of an odd number modulo 2^64."""
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(count, 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)


POWERS = powers(1 << 17)


class Tokens:
    """The tokens of a prompt."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        from cm2.train.embedded import embedded_folder

        self._tokenizer = Tokenizer.from_file(str(embedded_folder() / "tokenizer.json"))
        self._kept: dict[str, np.ndarray] = {}

    def of(self, text: str) -> np.ndarray:
        """The ids of a text, line by line: the same lines stand in many prompts."""
        parts = [np.zeros(0, dtype=np.uint64)]
        for line in text.splitlines(keepends=True):
            if line not in self._kept:
                ids = self._tokenizer.encode(line, add_special_tokens=False).ids
                self._kept[line] = np.array(ids, dtype=np.uint64)
            parts.append(self._kept[line])
        return np.concatenate(parts)

    def prompt(self, messages: list[dict[str, Any]]) -> np.ndarray:
        """The ids of a whole prompt."""
        return self.of("\n".join(message["content"] for message in messages))


class Cost(msgspec.Struct):
    """What a schedule took."""

    calls: int = 0
    prompt: int = 0
    prefilled: int = 0

    def add(self, requests: list[tuple[Request, Any]], tokens: Tokens, base: np.ndarray) -> None:
        """Count the requests of a group, in their order."""
        cache = PrefixCache(base)
        for request, _ in requests:
            ids = tokens.prompt(request.messages)
            self.calls += 1
            self.prompt += len(ids)
            self.prefilled += cache.read(ids)


def asked(task: Task, group: list[Dialogue], schedule: str) -> list[tuple[Request, Any]]:
    """The requests of a schedule about a group."""
    oracle = Oracle()
    oracle.items = {(str(c.turn), item.id): item for c in task.checklists for item in c.items}
    open_ = [stripped(checklist) for checklist in task.checklists]
    if schedule == PUBLISHED:
        for run in group:
            oracle.requests += [(request, None) for c in open_ for request in everything(run, c, oracle.secret)]
        return oracle.requests
    if schedule in (DIALOGUE, LAST):
        config = Judging(kind="llm", schedule="dialogue", items="last" if schedule == LAST else "first")
    else:
        config = Judging(kind="llm", schedule="published" if schedule == SKIPPED else schedule)  # type: ignore[arg-type]
    shared = LLMJudge(oracle, config)
    for run in group:
        oracle.run = run
        if config.schedule == "dialogue":
            wait(judge_dialogue(shared, run, open_))
            continue
        judge = LLMJudge(oracle, config) if schedule == SKIPPED else shared  # the scheme remembers nothing
        for checklist in open_:
            judge.judge(run, checklist.turn, checklist)
    return oracle.requests


def everything(run: Dialogue, checklist: Checklist, secret: str) -> Iterator[Request]:
    """Every item after every step."""
    fence = Fence.make(secret, run.id)
    for step in range(len(run.turns[checklist.turn].steps)):
        for item in checklist.items:
            view = View(run, checklist.turn, step, fence, sees_thinking(item))
            yield Question(form("published"), view, [item]).request([item], {})


def stripped(checklist: Checklist) -> Checklist:
    """The checklist without its checks."""
    items = [msgspec.structs.replace(item, check=None) for item in checklist.items]
    return msgspec.structs.replace(checklist, items=items)


def references(source: str, count: int, seed: int) -> list[Task]:
    """Labelled dialogues, drawn from the first 500 of the source."""
    if source == MADE:
        return [made_task(number) for number in range(count)]
    folder = Path(os.environ.get("CM2_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    file = folder / f"{source}.jsonl.gz"
    if file.exists():
        dialogues = [task.dialogue for _, task in islice(read_tasks(file, on_error=lambda row: None), 500)]
    else:
        profile = "full" if source == SOURCES[0] else "short"
        dialogues = list(make(MakeConfig(count=4 * count, profile=profile, seed=seed)))
    random.Random(seed).shuffle(dialogues)
    labelled = (ReferenceLabeler().label(dialogue).task for dialogue in dialogues)
    return list(islice((task for task in labelled if task.checklists), count))


def measure(tasks: list[Task], size: int, differ: float, tokens: Tokens, seed: int) -> dict[str, Cost]:
    """What every schedule costs on groups of this size."""
    costs = {schedule: Cost() for schedule in (*SCHEDULES, "floor")}
    for task in tasks:
        group = list(members(task.dialogue, size, differ, seed)) if size > 1 else [task.dialogue]
        for schedule, cost in costs.items():
            if schedule != "floor":
                cost.add(asked(task, group, schedule), tokens, tokens.of(form(form_of(schedule)).system.text))  # type: ignore[arg-type]
        costs["floor"].prefilled += floor(task, group, tokens)
    return costs


def form_of(schedule: str) -> str:
    """The form that a schedule asks in."""
    own = schedule.split(",")[0]
    return own if own in ("turn", "dialogue", "published") else "step"


def floor(task: Task, group: list[Dialogue], tokens: Tokens) -> int:
    """Every run read once, beginnings that are alike read once, and every item read once."""
    last = max(checklist.turn for checklist in task.checklists)
    cache = PrefixCache(np.zeros(0, dtype=np.uint64))
    runs = (transcript(run, upto=(last, len(run.turns[last].steps)), thinking=False) for run in group)
    items = (item_line(item) for checklist in task.checklists for item in checklist.items)
    return sum(cache.read(tokens.of(run)) for run in runs) + sum(len(tokens.of(item)) for item in items)


def made_task(number: int) -> Task:
    """A dialogue of 3 turns: look something up, act on it, tell. Six items a turn, tools that answer at length."""
    draw = random.Random(number)
    turns, checklists = [], []
    for t in range(3):
        id, price = f"K{draw.randrange(10**6)}", draw.randrange(20, 400)
        rows = [{"id": f"K{draw.randrange(10**6)}", "price": draw.randrange(20, 400), "note": NOTE} for _ in range(16)]
        rows[draw.randrange(16)] = {"id": id, "price": price, "note": NOTE}
        steps = [
            made_call("search", {"query": f"offer {t}", "sort": "price"}, {"offers": rows}),
            made_call("book", {"id": id, "quantity": t + 1}, {"booking": f"B{id}", "total": price * (t + 1)}),
            Step(reply=f"I booked {id} for you: {price * (t + 1)} in total, booking B{id}."),
        ]
        turns.append(Turn(f"Please find offer {t} and book {t + 1} of the cheapest that fits.", steps))
        booked = Called("book", {"id": CameFrom("search"), "quantity": Equals(t + 1)})
        checks = [
            ("assistant.tool_calls", Called("search", {"query": Contains(f"offer {t}")}), []),
            ("tool.content", Response("search", "offers[0].id"), []),
            ("assistant.tool_calls", booked, ["C1"]),
            ("tool.content", Response("book", "booking"), []),
            ("assistant.content.user_visible_reply", Reply(states=[Fact([price * (t + 1)], "number")]), ["C3"]),
            ("assistant.tool_calls", NotCalled(["cancel"]), []),
        ]
        items = [
            Item(
                f"C{n}",
                focus,
                f"Did the assistant do duty {n} of offer {t}?",
                CONDITION,
                1 / 6,
                depends_on=on,
                check=check,
            )  # type: ignore[arg-type]
            for n, (focus, check, on) in enumerate(checks)
        ]
        checklists.append(Checklist(t, items))
    return Task(Dialogue(f"made-{number}", turns, system=NOTE * 60), checklists)


def made_call(name: str, arguments: dict[str, Any], answer: Any) -> Step:
    """A call and its answer."""
    text = msgspec.json.encode(answer).decode()
    return Step(calls=[ToolCall(name, arguments, "c")], responses=[ToolResponse(text, "c", name)])


NOTE = (
    "Offers can be changed until the evening before; a change of the date is free of charge, a refund takes five days. "
)
CONDITION = (
    "It was done with the values that the user asked for or that an earlier answer of a tool gave. Case and spelling "
    "are free; further calls, their order and other arguments are free."
)


def shown(title: str, costs: dict[str, Cost]) -> Table:
    """The costs, and how many times of each the published scheme costs."""
    table = Table(title=title)
    for head in ("", "calls", "prompt tokens", "prefilled", "calls: published is", "prompt", "prefilled"):
        table.add_column(head, justify="right" if head else "left")
    published = costs[PUBLISHED]
    for name, cost in costs.items():
        counts = [getattr(cost, field) for field in ("calls", "prompt", "prefilled")]
        times = [
            f"{getattr(published, field) / count:.1f} x" if count else ""
            for field, count in zip(("calls", "prompt", "prefilled"), counts, strict=True)
        ]
        table.add_row(name, *(f"{count:,}" if count else "" for count in counts), *times)
    return table


def answer_tokens(request: Request, value: Any, tokens: Tokens) -> int:
    """How long the answer is: the true one, or the one that is planned."""
    return len(tokens.of(msgspec.json.encode(value or request.planned).decode()))


async def timed(requests: list[tuple[Request, Any]], tokens: Tokens, url: str, model: str, width: int) -> float:
    """Seconds that a server takes for these requests, each answered with as many tokens as the true answer has."""
    gate = asyncio.Semaphore(width)
    async with ChatClient(Endpoint(url, model, temperature=0.0, timeout=3600)) as client:

        async def one(request: Request, value: Any) -> None:
            length = answer_tokens(request, value, tokens)
            async with gate:
                await client.complete(request.messages, max_tokens=length, ignore_eos=True)

        started = time.perf_counter()
        await asyncio.gather(*(one(request, value) for request, value in requests))
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=4, help="dialogues of each source (default 4)")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8, 48], help="members of a group (default 1 8 48)")
    parser.add_argument("--sources", nargs="+", default=[*SOURCES, MADE], help="which dialogues")
    parser.add_argument("--differ", type=float, default=0.25, help="how likely a step departs (default 0.25)")
    parser.add_argument("--seed", type=int, default=0, help="of dialogues and departures")
    parser.add_argument("--json", help="write all numbers there")
    parser.add_argument("--vllm", help="base URL of a server: measure its time for a group of one dialogue")
    parser.add_argument("--members", type=int, default=8, help="members of that group (default 8)")
    parser.add_argument(
        "--schedules", nargs="+", default=[PUBLISHED, SKIPPED, "turn", DIALOGUE], help="schedules that are timed"
    )
    parser.add_argument("--model", default="", help="the model's name there")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once to the server")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    tokens = Tokens()
    sources = {source: references(source, options.dialogues, options.seed) for source in options.sources}
    if options.vllm:
        for source, tasks in sources.items():
            group = list(members(tasks[0].dialogue, options.members, options.differ, options.seed))
            table = Table(title=f"{source}: one dialogue, a group of {len(group)}, seconds of the server")
            for head in ("schedule", "calls", "prompt tokens", "answer tokens", "seconds"):
                table.add_column(head, justify="left" if head == "schedule" else "right")
            for schedule in options.schedules:
                requests = asked(tasks[0], group, schedule)
                took = asyncio.run(timed(requests, tokens, options.vllm, options.model, options.concurrency))
                prompt = sum(len(tokens.prompt(request.messages)) for request, _ in requests)
                answer = sum(answer_tokens(request, value, tokens) for request, value in requests)
                table.add_row(schedule, str(len(requests)), f"{prompt:,}", f"{answer:,}", f"{took:.1f}")
                print(f"{schedule}: {took:.1f} s", file=sys.stderr)  # a slow server may be given up on
            console.print(table)
        return
    found = []
    for source, tasks in sources.items():
        turns = [c for task in tasks for c in task.checklists]
        items = sum(len(c.items) for c in turns) / len(turns)
        steps = sum(len(task.dialogue.turns[c.turn].steps) for task in tasks for c in task.checklists) / len(turns)
        for size in options.groups:
            costs = measure(tasks, size, options.differ, tokens, options.seed)
            what = f"{source}: {len(tasks)} dialogues, {len(turns)} turns of {items:.1f} items and {steps:.1f} steps"
            console.print(shown(f"{what}; {'alone' if size == 1 else f'groups of {size}'}", costs))
            found.append({"source": source, "size": size, "items": items, "steps": steps, "costs": costs})
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
