"""A run judged by a model behind a server repeats bit for bit, however long each answer takes."""

from __future__ import annotations

import hashlib

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.judge.judging import Judging  # noqa: E402
from cm2.train.rl import train_rl  # noqa: E402
from servers.scripted import Scripted, digest_of, good  # noqa: E402
from train.tiny_run import make_model, numbers, settings, weights, write_tasks  # noqa: E402

MODELS = "default: {{base_url: {url}, model: scripted, backoff: 0.01, price: {{input: 0, output: 0}}}}\n"
LONGEST = 0.2
"""Seconds: tens of forward passes of the tiny model."""


def drawn(salt):
    """The true answers, each after a time that salt and question decide; at once without salt."""

    def script(body, tries):
        found = good(body, tries)
        draw = hashlib.sha256(f"{salt} {digest_of(body)}".encode()).digest()[0] / 255
        found.delay = LONGEST * draw if salt else 0.0
        return found

    return script


@pytest.mark.slow
def test_the_numbers_and_the_model_are_the_same_however_long_the_judge_thinks(tmp_path):
    start = make_model(tmp_path / "start")
    tasks = write_tasks(tmp_path / "tasks.jsonl", 8, checks=False)
    found = []
    for salt in ("", "a", "b"):
        folder = tmp_path / f"run-{salt}"
        with Scripted(drawn(salt)) as server:
            models = tmp_path / "models.yaml"
            models.write_text(MODELS.format(url=server.url))
            one = settings(folder, start, tasks, judging=Judging(kind="llm"), models=str(models), prompts=4, updates=3)
            train_rl(one)
            assert len(server.calls) > 10
        found.append((numbers(folder), weights(folder / "model")))
    for told, after in found[1:]:
        assert told == found[0][0]
        assert all(torch.equal(after[name], found[0][1][name]) for name in after)
