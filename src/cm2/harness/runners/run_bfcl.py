"""Runs BFCL-V4 in its own environment: our handler in its registry, its own `generate` and `evaluate`.

What is done on purpose, and why:
- the registry name has no underscore (the grader turns it into a slash) and the model's own name never reaches the
  back ends, which make Python identifiers of it;
- our handler builds the history itself, so that thinking is kept or dropped as asked (the package's own handlers do one
  or the other by accident of their class);
- an error is written down with its owner; `generate` would make an ordinary answer of it;
- the package evaluates calls as Python, `open(…)` and `input()` too: only names and values of calls get that far;
- on resuming, answers that were errors and a torn last line are taken out first: `generate` would take them as done.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from cm2_shared import check_tasks, is_object, owner, remembered, settings, thinking, told, visible

NAME = "cm2-agent"
_CALLED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def main() -> None:
    """Generate and evaluate what the settings name."""
    given = settings()
    root = Path(os.environ["BFCL_PROJECT_ROOT"])
    if (root / ".env").exists():
        sys.exit(f"{root / '.env'} would override the environment: take it away")

    from bfcl_eval.__main__ import cli
    from bfcl_eval.constants import model_config
    from bfcl_eval.utils import load_dataset_entry, load_ground_truth_entry

    model_config.MODEL_CONFIG_MAPPING[NAME] = model_config.ModelConfig(
        model_name=NAME,
        display_name=given["model"],
        url="",
        org="",
        license="",
        model_handler=handler(given),
        is_fc_model=True,
        underscore_to_dot=True,
    )
    chosen, whole, seen = {}, {}, hashlib.sha256()
    for category in given["categories"]:
        entries, truths = load_dataset_entry(category), load_ground_truth_entry(category)
        whole[category] = len(entries)
        pairs = [
            pair for pair in zip(entries, truths, strict=True) if not given["tasks"] or pair[0]["id"] in given["tasks"]
        ][: given["limit"]]
        chosen[category] = [entry["id"] for entry, _ in pairs]
        seen.update(json.dumps(pairs, sort_keys=True, default=str).encode())
    check_tasks(given["tasks"], {id for ids in chosen.values() for id in ids})
    told_tasks = {"tasks": chosen, "whole": whole, "hash": seen.hexdigest()[:16]}
    (root / "tasks.json").write_text(json.dumps(told_tasks))
    subset = any(len(ids) < whole[category] for category, ids in chosen.items())
    categories = [category for category, ids in chosen.items() if ids]
    clean(root / "result")
    generate = ["generate", "--model", NAME, "--result-dir", "result", "--num-threads", str(given["concurrency"])]
    generate += ["--temperature", str(0.001 if given["temperature"] is None else given["temperature"])]
    if subset:
        (root / "test_case_ids_to_generate.json").write_text(json.dumps(chosen))
        generate.append("--run-ids")
    cli(args=[*generate, "--test-category", ",".join(categories)], standalone_mode=False)
    evaluate = ["evaluate", "--model", NAME, "--result-dir", "result", "--score-dir", "score"]
    evaluate += ["--test-category", ",".join(categories), *(["--partial-eval"] if subset else [])]
    cli(args=evaluate, standalone_mode=False)


def handler(given: dict[str, Any]) -> type:
    """The handler's class, for these settings."""
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
    from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler

    reached = {*vars(builtins), *vars(multi_turn_utils)}  # what `eval` finds there beside the back ends

    class Handler(OpenAICompletionsHandler):
        """OpenAI's protocol, thinking on purpose, errors with their owner."""

        def _build_client_kwargs(self) -> dict[str, Any]:
            return super()._build_client_kwargs() | {"timeout": given["timeout"], "max_retries": given["retries"]}

        def inference(self, test_entry, include_input_log, exclude_state_log):
            try:
                return super().inference(test_entry, include_input_log, exclude_state_log)
            except Exception as error:
                raise RuntimeError(f"[{owner(error)}] {told(error)}") from error

        def generate_with_backoff(self, **request):
            request["model"] = given["model"]
            request.pop("store", None)  # other servers than OpenAI's refuse it
            if given["max_tokens"] is not None:
                request["max_tokens"] = given["max_tokens"]
            # Without the package's own waiting, which never ends on 429: the client tries again as often as was asked.
            begun = time.time()
            return self.client.chat.completions.create(**request), time.time() - begun

        def decode_execute(self, result, has_tool_call_tag):
            texts = super().decode_execute(result, has_tool_call_tag)
            told_calls = [one for call in result for one in call.items()]
            if not all(is_object(arguments) for _, arguments in told_calls):
                raise ValueError("arguments that are no JSON object")
            made = [(name, json.loads(arguments)) for name, arguments in told_calls]
            return [harmless(text, *one, reached) for text, one in zip(texts, made, strict=True)]

        def _parse_query_response_FC(self, api_response) -> dict[str, Any]:
            message, usage = api_response.choices[0].message, api_response.usage
            calls = message.tool_calls or []
            return {
                "model_responses": [{call.function.name: call.function.arguments or "{}"} for call in calls]
                or visible(message.content),
                "model_responses_message_for_chat_history": remembered(message, given["thinking"] == "keep"),
                "tool_call_ids": [call.id for call in calls],
                "input_token": usage.prompt_tokens if usage else 0,
                "output_token": usage.completion_tokens if usage else 0,
                "reasoning_content": "\n".join(thinking(message).values()),
            }

    return Handler


def harmless(text: str, name: str, arguments: dict[str, Any], reached: set[str]) -> str:
    """A call as Python, or where it would run something else than a tool, what ends in an error that says so."""
    if not _CALLED.fullmatch(name) or not all(key.isidentifier() for key in arguments):
        return f"no call {name!r}"  # evaluated, a syntax error, as it is without this for every honest mistake
    return f"{name.replace('.', '_')}_is_no_tool()" if name.split(".")[0] in reached else text


def clean(folder: Path) -> None:
    """Take out what a resumed run must do again: torn lines, and answers that are errors of somebody else's."""
    for path in folder.rglob("*_result.json"):
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            lost = isinstance(entry["result"], str) and "traceback" in entry and "[agent]" not in entry["result"][:40]
            if not lost:
                kept.append(line)
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


if __name__ == "__main__":
    main()
