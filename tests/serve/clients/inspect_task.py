"""An Inspect task with a tool of its own, against an endpoint, without the network. The one in docs/serve.md."""

from __future__ import annotations

import json
import os
import sys
import tempfile

given = json.load(sys.stdin)
os.environ["CM2_BASE_URL"], os.environ["CM2_API_KEY"] = given["base_url"], given["key"]

from inspect_ai import Task, eval, task  # noqa: E402
from inspect_ai.dataset import Sample  # noqa: E402
from inspect_ai.scorer import includes  # noqa: E402
from inspect_ai.solver import generate, use_tools  # noqa: E402
from inspect_ai.tool import tool  # noqa: E402


@tool
def get_order():
    async def execute(order: str) -> str:
        """Look up an order.

        Args:
            order: its number
        """
        return f"order {order} was shipped"

    return execute


@task
def shop() -> Task:
    samples = [Sample(input="Where is order 7?", target="shipped"), Sample(input="And order 8?", target="lost")]
    return Task(dataset=samples, solver=[use_tools(get_order()), generate()], scorer=includes())


with tempfile.TemporaryDirectory() as folder:
    (log,) = eval(shop(), model=f"openai-api/cm2/{given['model']}", log_dir=folder, display="none", max_tokens=200)
    samples = log.samples or []  # read from the folder only now
    found = {
        "status": log.status,
        "error": str(log.error),
        "scores": [sample.scores["includes"].value for sample in samples],
        "roles": [[message.role for message in sample.messages] for sample in samples],
        "tokens": [
            sum(usage.input_tokens for usage in log.stats.model_usage.values()),
            sum(usage.output_tokens for usage in log.stats.model_usage.values()),
        ],
    }
print(json.dumps(found))
