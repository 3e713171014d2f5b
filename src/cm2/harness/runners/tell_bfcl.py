"""Tells what BFCL's multi-turn tasks are: their tools, what the user says, and the right calls with their answers.

The right answer of a turn is a list of calls as Python writes them. They are run on the benchmark's own back ends, one
by one, and each is told with what it answered, whether it changed anything that the grader compares, and whether
making it again would change more (which is tried, and taken back).
"""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

from cm2_shared import settings

MODEL = "cm2_reference"
LATER = "What was held back is there now."


def main() -> None:
    """One line a task, into told.jsonl."""
    given = settings()
    from bfcl_eval.utils import load_dataset_entry, load_ground_truth_entry

    with open(Path.cwd() / "told.jsonl", "w", encoding="utf-8") as out:
        for category in given["categories"]:
            entries, truths = load_dataset_entry(category), load_ground_truth_entry(category)
            wanted = set(given["tasks"].get(category) or [])
            # all of them, since only all right answers together say which tools change something
            made = [one(category, *pair) for pair in zip(entries, (one["ground_truth"] for one in truths), strict=True)]
            writes = {
                call["name"] for task in made for turn in task["turns"] for call in turn["calls"] if call["changed"]
            }
            for task in made:
                if not wanted or task["task"] in wanted:
                    offered = [tool["function"]["name"] for tool in task["tools"]]
                    out.write(json.dumps(task | {"writes": [name for name in offered if name in writes]}) + "\n")


def one(category: str, entry: dict[str, Any], truth: list[list[str]]) -> dict[str, Any]:
    """A task."""
    from bfcl_eval.constants.enums import ModelStyle
    from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI
    from bfcl_eval.model_handler.utils import convert_to_tool

    held = {int(turn): docs for turn, docs in entry.get("missed_function", {}).items()}
    docs = copy.deepcopy([*entry["function"], *(doc for more in held.values() for doc in more)])
    tools = convert_to_tool(docs, GORILLA_TO_OPENAPI, ModelStyle.OPENAI_COMPLETIONS)
    order = {tool["function"]["name"]: list(tool["function"]["parameters"]["properties"]) for tool in tools}
    turns = []
    for number, told in enumerate(entry["question"]):
        said = [message["content"] for message in told if message["role"] == "user"]
        done = [run(category, entry, call, order) for call in truth[number]]
        turns.append(
            {"user": "\n".join(said) or LATER, "calls": done, "new": [doc["name"] for doc in held.get(number, [])]}
        )
    return {"category": category, "task": entry["id"], "tools": tools, "system": None, "turns": turns}


def run(category: str, entry: dict[str, Any], text: str, order: dict[str, list[str]]) -> dict[str, Any]:
    """A right call, its answer, and whether it changed the state that is graded."""
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import state_checker
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

    def execute(calls: list[str]) -> tuple[list[str], dict]:
        long = "long_context" in category
        return execute_multi_turn_func_call(
            calls, entry["initial_config"], entry["involved_classes"], MODEL, entry["id"], long, False
        )

    before = copy.deepcopy(execute([])[1])
    (answer,), world = execute([text])
    changed = not state_checker(world, before)["valid"]
    after = copy.deepcopy(world)
    execute([text])
    again = not state_checker(world, after)["valid"]
    for name, instance in world.items():
        vars(instance).clear()
        vars(instance).update(vars(after[name]))
    name, arguments = read(text, order)
    return {"name": name, "arguments": arguments, "answer": answer, "changed": changed, "again": again}


def read(text: str, order: dict[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """A call as Python writes it, with positional arguments named by the schema."""
    node = ast.parse(text, mode="eval").body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError(f"a right answer is no call: {text}")
    given = dict(zip(order.get(node.func.id, []), map(ast.literal_eval, node.args), strict=False))
    return node.func.id, given | {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg}


if __name__ == "__main__":
    main()
