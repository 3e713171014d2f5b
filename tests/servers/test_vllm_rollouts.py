"""A real vLLM server decodes a policy's rollouts: weights arrive, ids come back, log-probabilities are the policy's.

What `tests/rollout/test_served.py` shows with a stand-in, here with vLLM's CPU build in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cm2.errors import ConfigError  # noqa: E402
from cm2.rollout.generation import Generation  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.rollout.served import ServedDriver  # noqa: E402
from cm2.train.embedded import load_model  # noqa: E402
from rollout.test_served import environments  # noqa: E402
from servers.real_servers import start  # noqa: E402

pytestmark = pytest.mark.servers
SAMPLING = Sampling(temperature=0.8, max_step_tokens=12, max_tokens=1500, seed=1)


@pytest.fixture(scope="module", params=["vllm"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start(request.param, tmp_path_factory.mktemp("server")) as (url, _):
        yield url


def served(server: str, folder: Path, tokenizer: Any) -> ServedDriver:
    return ServedDriver(Generation(engine="vllm", base_url=server), tokenizer, SAMPLING, folder=folder, context=2048)


def test_rollouts_have_the_policys_log_probabilities_before_and_after_an_update(server: str, tmp_path: Path) -> None:
    model, tokenizer = load_model("embedded")
    driver = served(server, tmp_path / "weights", tokenizer)
    for update in range(2):
        driver.update_weights(model)
        assert driver.difference is not None and driver.difference < 0.15
        rollouts = driver.run(environments(2, steps=1))
        assert all(rollout.valid and rollout.segments for rollout in rollouts)
        for rollout in rollouts:
            segment = rollout.segments[0]
            with torch.no_grad():
                whole = model(input_ids=torch.tensor([segment.prompt + segment.tokens])).logits[0]
            logits = whole[len(segment.prompt) - 1 : -1] / SAMPLING.temperature
            wanted = torch.log_softmax(logits, -1)[range(len(segment.tokens)), segment.tokens]
            assert float((wanted - torch.tensor(segment.logprobs)).abs().mean()) < 0.15, update
        with torch.no_grad():  # another policy: what the server said before would be a nat or more off
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)


def test_another_tokenizer_is_refused(server: str, tmp_path: Path) -> None:
    from rollout.tiny_models import tiny_chat

    with pytest.raises(ConfigError, match="cuts a text into other tokens"):
        served(server, tmp_path, tiny_chat()[1])
