"""Memory and time of `cm2 filter --llm`, `cm2 compress` and `cm2 select` over many rows.

    python benchmarks/curate_scale.py                     # 20,000 rows each
    python benchmarks/curate_scale.py --rows 310000       # as many as the published data set has

The model is one that answers at once from this process, so what is measured is everything but the model: reading, the
rules, prompts, the checks on answers, writing. Every row has words of its own; one in ten is nearly an earlier one.
Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cm2.curate.compress import CompressConfig, compress_file
from cm2.curate.filter import FilterConfig, filter_file
from cm2.curate.select import select_file
from cm2.curate.selection import SelectConfig
from cm2.formats import RowWriter
from cm2.llm import Answer, Request

SYLLABLES = [f"{first}{second}" for first in "bdfgklmnprst" for second in "aeiou"]
WORDS = [f"{a}{b}{c}" for a in SYLLABLES[:20] for b in SYLLABLES[:30] for c in SYLLABLES[:30]]
POINTS = 5


class Ready:
    """Answers at once: yes to seven rows in ten at each pass, and half of every thinking section."""

    secret = "benchmark"

    def __init__(self) -> None:
        self.calls = 0
        self._draw = random.Random(0)

    async def ask(self, request: Request, check: Any = None) -> Answer:
        self.calls += 1
        await asyncio.sleep(0)
        value = dict(request.planned)
        if request.role == "filter":
            value["verdict"] = "yes" if self._draw.random() < 0.7 else "no"
        if check is not None:
            assert not check(value)
        return Answer(value, model="ready")


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}", "parameters": parameters}}


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Dialogues of one to five turns with one to three calls each."""
    draw = random.Random(0)
    pool = [tool(f"service_{n}") for n in range(600)]
    last: list[str] = []
    for number in range(count):
        tools = draw.sample(pool, 6)
        said = last if last and draw.random() < 0.1 else draw.choices(WORDS, k=40 * draw.randint(1, 5))
        last = [*said[:-1], draw.choice(WORDS)]
        messages: list[dict[str, Any]] = [{"role": "system", "content": "You help people by calling services."}]
        for start in range(0, len(said), 40):
            messages.append({"role": "user", "content": " ".join(said[start : start + 40])})
            for _ in range(draw.randint(1, 3)):
                query = " ".join(said[start : start + 4])
                call = {"name": draw.choice(tools)["function"]["name"], "arguments": json.dumps({"query": query})}
                thought = f"<think>\nThe user wants something about {query}. " + "I think about it. " * 8 + "\n</think>"
                called = [{"id": "c", "type": "function", "function": call}]
                messages.append({"role": "assistant", "content": thought, "tool_calls": called})
                messages.append({"role": "tool", "content": json.dumps({"found": said[start : start + 20]})})
            messages.append({"role": "assistant", "content": "<think>\nI can answer now.\n</think>\n\nHere it is."})
        yield {"id": f"row-{number}", "tools": tools, "messages": messages}


def resident() -> float:
    """Megabytes that this process holds now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def watched(items: Iterable[Any], total: int) -> Iterator[Any]:
    """The items, with what is held in memory every now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if number % max(1, total // POINTS) == 0:
            print(f"    {number:>9,} rows {resident():8.1f} MB", flush=True)


def measure(name: str, count: int, work: Callable[[], str]) -> None:
    print(f"  {name}: {resident():.1f} MB before", flush=True)
    start, cpu = time.perf_counter(), time.process_time()
    told = work()
    spent = time.process_time() - cpu
    print(
        f"    {told}; CPU {spent:.0f} s ({spent / count * 1e3:.2f} ms a row), wall {time.perf_counter() - start:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--only", choices=["filter", "compress", "select"])
    options = parser.parse_args()
    count = options.rows
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        source = str(at / "in.jsonl")
        with RowWriter(source) as writer:
            for row in rows(count):
                writer.write(row)
        print(f"{count:,} rows, {Path(source).stat().st_size / 1e6:,.0f} MB")

        def filtered() -> str:
            config = FilterConfig(source, str(at / "kept.jsonl"), str(at / "rejected.jsonl"), llm=True)
            summary = filter_file(config, lambda items: watched(items, count), Ready())
            assert summary.llm is not None
            return f"{summary.llm.calls:,} calls, {summary.kept:,} kept, {summary.rejected:,} rejected"

        def compressed() -> str:
            config = CompressConfig(source, str(at / "short.jsonl"))
            summary = compress_file(config, Ready(), lambda items: watched(items, count))
            return f"{summary.calls:,} calls, {summary.rewritten:,} of {summary.sections:,} sections rewritten"

        def selected() -> str:
            config = SelectConfig(source, str(at / "splits"), shrink=True)
            summary = select_file(config, lambda items, what: watched(items, count)).summary
            splits = ", ".join(f"{name} {split.rows:,}" for name, split in summary.splits.items())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            return f"{splits}; {summary.left_out}; at most {peak:,.0f} MB"

        for name, work in (("filter", filtered), ("compress", compressed), ("select", selected)):
            if options.only in (None, name):
                measure(name, count, work)


if __name__ == "__main__":
    main()
