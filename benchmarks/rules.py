"""The rules over rows in the Nemotron format: rows a second on one core, beside what parsing the JSON alone takes.

    python benchmarks/rules.py                  # 50,000 rows, three kinds of tool lists
    python benchmarks/rules.py --memory         # 310,000 rows, resident memory at several points

Everything is included: reading the file, every rule of the `published` profile with real schema validation, writing
the rows that pass. The floor is `json.loads` of each line and nothing more. Three inputs, because a kept tool list is
only worth what the data repeat: tool lists as the data repeat them, a list of its own for each row (known tools, drawn
anew), and tools that nobody has seen before in each row. The last columns are the schema rule alone in the obvious way:
json and the pure Python `jsonschema`, validators kept by schema.

Times are CPU seconds of this process, the faster of two runs, so that a busy machine shows less. Every row has its own
id and its own first message; no two rows are the same. Give rows with --data FILE (by default nemotron_like.jsonl.gz
in the folder $CM2_DATA where that is set, else rows made here).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema

from cm2.curate import FilterConfig, Summary, filter_file
from cm2.formats.rows import Row, RowWriter, read_rows

Value = dict[str, Any]
BASELINE_ROWS = 2_000


def tool(name: str) -> Value:
    """A function schema with some of everything."""
    properties = {
        "place": {"type": "string", "description": "Name of the place"},
        "date": {"type": "string", "format": "date"},
        "people": {"type": "integer", "minimum": 1, "maximum": 12},
        "kind": {"type": "string", "enum": ["inside", "terrace", "window"]},
        "price": {"anyOf": [{"type": "number"}, {"type": "object", "properties": {"at_most": {"type": "number"}}}]},
    }
    parameters = {"type": "object", "properties": properties, "required": ["place"], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"Do {name}", "parameters": parameters}}


def made_rows(count: int = 500) -> list[Value]:
    """Dialogues of some twenty messages with seven of seventy tools, for a machine without data."""
    draw = random.Random(0)
    pool = [tool(f"service_{n}_{verb}") for n in range(35) for verb in ("find", "book")]
    rows = []
    for n in range(count):
        tools = draw.sample(pool, 7)
        messages: list[Value] = [{"role": "system", "content": "You help users by calling services. " * 5}]
        for turn in range(5):
            arguments = json.dumps({"place": f"place {draw.randrange(99)}", "people": draw.randint(1, 12)})
            call = {"name": tools[turn]["function"]["name"], "arguments": arguments}
            found = [{"place": f"place {k}", "address": f"{k} Main Street", "open": True} for k in range(6)]
            thought = "<think>\nThe user wants a place; all is known, so I call the service.\n</think>"
            messages += [
                {"role": "user", "content": f"I am looking for a place for tonight, wish {turn}."},
                {
                    "role": "assistant",
                    "content": thought,
                    "tool_calls": [{"id": "c", "type": "function", "function": call}],
                },
                {"role": "tool", "content": json.dumps({"results": found})},
                {"role": "assistant", "content": f"{thought}\n\nThere are six places, the first on Main Street."},
            ]
        for message in messages:
            message.setdefault("tool_calls", [])
        rows.append({"uuid": str(n), "messages": messages, "metadata": json.dumps({"tools": tools})})
    return rows


def repeated(rows: list[Value], count: int) -> Iterator[Value]:
    """The rows again and again, each with an id and a first user message of its own."""
    for n in range(count):
        row = rows[n % len(rows)]
        messages = list(row["messages"])
        first = next(i for i, message in enumerate(messages) if message["role"] == "user")
        messages[first] = {**messages[first], "content": f"({n}) {messages[first]['content']}"}
        yield {**row, "uuid": f"row-{n}", "messages": messages}


def own_lists(rows: list[Value], count: int) -> Iterator[Value]:
    """Each row offers its tools in another order, with one more that other rows offer too."""
    draw = random.Random(1)
    lists = [json.loads(row["metadata"])["tools"] for row in rows]
    pool = list({each["function"]["name"]: each for tools in lists for each in tools}.values())
    for n, row in enumerate(repeated(rows, count)):
        tools = lists[n % len(rows)]
        names = {each["function"]["name"] for each in tools}
        more = [each for each in draw.sample(pool, min(20, len(pool))) if each["function"]["name"] not in names][:1]
        offered = tools + more
        draw.shuffle(offered)
        yield {**row, "metadata": json.dumps({"tools": offered, "row": n})}


def own_tools(rows: list[Value], count: int) -> Iterator[Value]:
    """Each row's tools differ from all others in a description inside their schemas."""
    for n, row in enumerate(repeated(rows, count)):
        yield {**row, "metadata": row["metadata"].replace('"type": "object"', f'"title": "{n}", "type": "object"')}


def write(path: Path, rows: Iterable[Value]) -> str:
    with RowWriter(path) as writer:
        for row in rows:
            writer.write_text(json.dumps(row, ensure_ascii=False).encode())
    return str(path)


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def floor(path: str) -> float:
    """CPU seconds that the standard library takes to parse the lines, reading not counted and nothing kept."""

    def parse(lines: list[bytes]) -> None:
        for line in lines:
            json.loads(line)

    spent = 0.0
    with open(path, "rb") as file:
        while lines := file.readlines(1 << 22):
            spent += seconds(lambda lines=lines: parse(lines))
    return spent


def baseline(path: str, count: int) -> float:
    """CPU seconds a row for the schema rule with json and jsonschema."""
    validators: dict[str, Any] = {}

    def check(line: bytes) -> None:
        row = json.loads(line)
        schemas = {}
        for each in json.loads(row["metadata"])["tools"]:
            schema = each["function"].get("parameters", {})
            key = json.dumps(schema)
            if key not in validators:
                jsonschema.Draft202012Validator.check_schema(schema)
                validators[key] = jsonschema.Draft202012Validator(schema)
            schemas[each["function"]["name"]] = validators[key]
        for message in row["messages"]:
            for call in message["tool_calls"]:
                schemas[call["function"]["name"]].is_valid(json.loads(call["function"]["arguments"]))

    with open(path, "rb") as file:
        lines = [line for line, _ in zip(file, range(count), strict=False)]
    return seconds(lambda: [check(line) for line in lines]) / len(lines)


def resident() -> float:
    """Megabytes that this process holds now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def watched(rows: Iterable[Row], points: int, total: int) -> Iterator[Row]:
    """The rows, with a line about memory every now and then."""
    for n, row in enumerate(rows, 1):
        yield row
        if n % max(1, total // points) == 0:
            print(f"  {n:>9,} rows  {resident():8.1f} MB", flush=True)


def config(folder: Path, source: str) -> FilterConfig:
    return FilterConfig(source, str(folder / "kept.jsonl"), str(folder / "rejected.jsonl"), profile="published")


def speed(rows: list[Value], count: int, folder: Path) -> None:
    print(
        f"{'tool lists':22}{'rows/s':>9}{'us/row':>9}{'json us':>9}{'ratio':>7}{'jsonschema us':>15}{'ratio':>7}  kept"
    )
    for name, make in (
        ("as the data repeat", repeated),
        ("one of each row's own", own_lists),
        ("unseen tools", own_tools),
    ):
        source = write(folder / "in.jsonl", make(rows, count))
        before = floor(source)
        summary: list[Summary] = []
        run = lambda source=source, summary=summary: summary.append(filter_file(config(folder, source)))  # noqa: E731
        spent = seconds(run)
        least = min(before, floor(source)) / count
        spent = min(spent, seconds(run))  # the faster of two runs, as of the floor
        plain = baseline(source, min(count, BASELINE_ROWS))
        own = spent / count
        print(
            f"{name:22}{1 / own:>9,.0f}{own * 1e6:>9.1f}{least * 1e6:>9.1f}{own / least:>7.2f}"
            f"{plain * 1e6:>15.1f}{plain / own:>7.2f}  {summary[0].kept:,} of {summary[0].read:,}",
            flush=True,
        )


def memory(rows: list[Value], count: int, folder: Path) -> None:
    print(f"resident memory, tool lists of each row's own, {count:,} rows")
    source = write(folder / "in.jsonl", own_lists(rows, count))
    print(f"  {0:>9,} rows  {resident():8.1f} MB")
    start = time.perf_counter(), time.process_time()
    summary = filter_file(config(folder, source), lambda found: watched(found, 10, count))
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"  kept {summary.kept:,}, rejected {summary.rejected:,}; {wall:.0f} s, of which CPU {cpu:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("CM2_DATA", "")) / "nemotron_like.jsonl.gz"
    parser.add_argument("--data", default=str(data) if data.is_file() else None, help="rows in the Nemotron format")
    parser.add_argument("--rows", type=int, help="rows to filter")
    parser.add_argument("--memory", action="store_true", help="show resident memory instead of speed")
    options = parser.parse_args()
    rows = [row.value for row in read_rows(options.data)] if options.data else made_rows()
    print(f"{len(rows)} rows of {options.data or 'made dialogues'}, repeated")
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            memory(rows, options.rows or 310_000, Path(folder))
        else:
            speed(rows, options.rows or 50_000, Path(folder))


if __name__ == "__main__":
    main()
