"""BFCL-V4: multi-turn function calling (four categories of 200), and web search (two of 100).

The harness writes a file of answers a category and, of its grader, one line with the accuracy followed by the failures
only. An error while a conversation is made becomes an ordinary answer that reads "Error during inference: …" and is
graded as the agent's failure; here it is an error with an owner. Web search without a key that works does the same
without a word: every search ends in a network error, and the number looks like a score. So it is refused.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson

from cm2.errors import ConfigError
from cm2.harness.environments import Environment
from cm2.harness.process import HarnessFailed, run
from cm2.harness.results import Outcome, Owner
from cm2.harness.settings import EvalConfig

MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
WEB_SEARCH = ("web_search_base", "web_search_no_snippet")
WHOLE = dict.fromkeys(MULTI_TURN, 200) | dict.fromkeys(WEB_SEARCH, 100)
GROUPS = {"multi_turn": MULTI_TURN, "web_search": WEB_SEARCH}
DEFAULT = ["multi_turn"]
AGENT = "cm2-agent"
KEY = "SERPAPI_API_KEY"
SEARCH = "https://serpapi.com/search"
PROBE = "Berkeley function calling leaderboard"
_OWNED = re.compile(r"^Error during inference: \[(agent|infrastructure)\] ")
_SEARCH_FAILED = ("search_engine_query", '"error"')


def run_once(config: EvalConfig, environment: Environment, folder: Path, run_index: int, chosen: list[str]) -> Any:
    """Run one repetition; yields how many conversations are done."""
    settings = {
        "model": config.model,
        "thinking": config.thinking,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "timeout": config.timeout,
        "retries": config.retries,
        "concurrency": config.concurrency,
        "categories": chosen,
        "tasks": config.tasks,
        "limit": config.limit,
    }
    variables = {
        "BFCL_PROJECT_ROOT": str(folder.resolve()),  # else results land in the environment's site-packages
        "OPENAI_BASE_URL": config.base_url,
        "OPENAI_API_KEY": config.secret("agent"),
    }
    if any(name in WEB_SEARCH for name in chosen):
        probe_search()
        variables[KEY] = os.environ[KEY]
    return run(environment, "run_bfcl.py", settings, variables, folder, Answers(folder))


def probe_search(address: str = SEARCH) -> None:
    """Ask the search engine one question, as the harness would.

    Raises:
        ConfigError: there is no key, or the answer holds no results.
    """
    key = os.environ.get(KEY)
    fix = "web search needs a SerpAPI key that works and the web: without them the score is one of network errors"
    if not key:
        raise ConfigError(f"{KEY} is not set", fix=fix)
    try:
        query = {"engine": "duckduckgo", "q": PROBE, "kl": "wt-wt", "api_key": key}
        answer = httpx.get(address, params=query, timeout=60).json()
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(f"the probe query for web search failed: {type(error).__name__}", fix=fix) from error
    if not isinstance(answer, dict) or not answer.get("organic_results"):
        said = str(answer.get("error", "no results"))[:200] if isinstance(answer, dict) else "no results"
        raise ConfigError(f"the probe query for web search found nothing: {said.replace(key, '…')}", fix=fix)


def parse(folder: Path, run_index: int, raw: str) -> tuple[list[Outcome], dict[str, list[float]]]:
    """The outcomes of one repetition, and the harness's own accuracy by category.

    Args:
        raw: the folder's name from the folder of results.

    Raises:
        HarnessFailed: a conversation or a category is missing.
    """
    chosen = orjson.loads((folder / "tasks.json").read_bytes())["tasks"]
    outcomes, official = [], {}
    for category, ids in chosen.items():
        if not ids:
            continue
        answers = {row["id"]: row for row in _rows(folder, "result", category, "result")}
        header, *failures = _rows(folder, "score", category, "score")
        failed = {row["id"]: row for row in failures}
        official[category] = [float(header["accuracy"])]
        missing = [id for id in ids if id not in answers]
        if missing:
            raise HarnessFailed(f"{category}: {len(missing)} answers are missing", fix="run the same command again")
        shown = f"{raw}/{_file(folder, 'result', category).relative_to(folder)}"
        for id in ids:
            owner, error = whose(answers[id], category)
            passed = id not in failed
            if not error and not passed:
                error = _why(failed[id])
            outcomes.append(
                Outcome(
                    task=id,
                    category=category,
                    run=run_index,
                    score=float(passed),
                    passed=passed,
                    owner=owner,
                    error=error,
                    raw=shown,
                )
            )
    return outcomes, official


def whose(answer: dict[str, Any], category: str) -> tuple[Owner | None, str]:
    """The owner of an answer's error, and the error."""
    result = answer["result"]
    if isinstance(result, str) and (result.startswith("Error during inference") or "traceback" in answer):
        owned = _OWNED.match(result)
        if owned is None:  # not from our handler: the harness itself broke down
            return "infrastructure", result
        return ("agent" if owned[1] == "agent" else "infrastructure"), result[owned.end() :]
    if category in WEB_SEARCH and (lost := _search_error(answer)):
        return "infrastructure", lost
    for step in _steps(result):
        for call in step:
            for name, arguments in call.items():
                if not _is_object(arguments):
                    return "agent", f"{name}: arguments that are no JSON object: {str(arguments)[:200]}"
    return None, ""


def _steps(result: Any) -> Iterator[list[dict[str, Any]]]:
    for turn in result if isinstance(result, list) else []:
        for step in turn if isinstance(turn, list) else []:
            if isinstance(step, list):
                yield [call for call in step if isinstance(call, dict)]


def _is_object(arguments: Any) -> bool:
    try:
        return isinstance(orjson.loads(arguments) if isinstance(arguments, str) else arguments, dict)
    except orjson.JSONDecodeError:
        return False


def _search_error(answer: dict[str, Any]) -> str:
    """A search that the engine failed, which the agent is shown as if it were an answer."""
    for turn in answer.get("inference_log", []):
        for name, step in turn.items() if isinstance(turn, dict) else ():
            if not name.startswith("step_"):
                continue
            calls = [call for one in step for call in one.get("model_response_decoded", [])]
            said = [one["content"] for one in step if one.get("role") == "tool"]
            for call, content in zip(calls, said, strict=False):
                if str(call).startswith(_SEARCH_FAILED[0]) and str(content).lstrip().startswith(
                    "{" + _SEARCH_FAILED[1]
                ):
                    return f"a search failed: {str(content)[:200]}"
    return ""


def _why(failure: dict[str, Any]) -> str:
    found = failure.get("error")
    if not isinstance(found, dict):
        return str(found)[:300]
    message = found.get("error_message", "")
    if isinstance(message, list):
        message = " ".join(map(str, message))
    return f"{found.get('error_type', 'failed')}: {message}"[:300]


def overall(folder: Path) -> dict[str, float]:
    """The leaderboard's numbers for multi-turn, from data_multi_turn.csv (the overall one counts what was not run)."""
    path = folder / "score" / "data_multi_turn.csv"
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        row = next(iter(csv.DictReader(file)), {})
    found = {}
    for name, value in row.items():
        text = (value or "").strip().rstrip("%")
        if name and text.replace(".", "", 1).isdigit():
            found[name] = float(text) / 100
    return found


def _file(folder: Path, kind: str, category: str, suffix: str | None = None) -> Path:
    found = sorted((folder / kind / AGENT).rglob(f"BFCL_v4_{category}_{suffix or kind}.json"))
    if not found:
        raise HarnessFailed(f"there is no {kind} of {category}", fix=f"look into {folder / 'log.txt'}")
    return found[0]


def _rows(folder: Path, kind: str, category: str, suffix: str) -> list[dict[str, Any]]:
    with open(_file(folder, kind, category, suffix), "rb") as file:
        return [orjson.loads(line) for line in file if line.strip()]


class Answers:
    """Counts the answers that are written so far; of a file that grew it reads what is new, as they hold megabytes."""

    def __init__(self, folder: Path):
        self._folder = folder / "result"
        self._seen: dict[Path, tuple[int, int]] = {}

    def __call__(self) -> int:
        """Lines of all files."""
        for path in self._folder.rglob("*_result.json"):
            offset, lines = self._seen.get(path, (0, 0))
            with open(path, "rb") as file:
                if file.seek(0, os.SEEK_END) < offset:  # written anew
                    offset, lines = 0, 0
                file.seek(offset)
                data = file.read()
            self._seen[path] = (offset + len(data), lines + data.count(b"\n"))
        return sum(lines for _, lines in self._seen.values())
