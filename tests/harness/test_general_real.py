"""lm-eval itself on a tiny random model, beside the same numbers computed by hand from its logits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.train, pytest.mark.slow]

import torch  # noqa: E402

from cm2.harness import general_data, results  # noqa: E402
from cm2.harness.general import GeneralConfig, evaluate  # noqa: E402
from cm2.harness.general_data import BY_NAME, PARTS  # noqa: E402
from harness import real  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402


def test_the_data_that_the_packages_ship_are_as_many_as_is_said() -> None:
    place = Path(real.environment("general").folder)
    for part in PARTS:
        rows = general_data.rows(part, place)
        assert len(rows) == part.count and len({row["id"] for row in rows}) == part.count
        assert all(0 <= row["gold"] < len(row["choices"]) for row in rows if part.kind == "choice")
        assert all(len(row["text"]) > 100 for row in rows if part.kind == "text")


def test_log_likelihoods_and_accuracy_are_those_computed_by_hand(tmp_path: Path) -> None:
    place = Path(real.environment("general").folder)
    model, tokenizer = tiny_chat()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def logprobs(ids: list[int]) -> torch.Tensor:
        """log p of every token but the first, given those before it."""
        with torch.no_grad():
            found = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return found[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    out = tmp_path / "out"
    evaluate(
        GeneralConfig(checkpoint=str(tmp_path / "model"), output=str(out), categories=["senses", "prose"], limit=6)
    )
    outcomes = {(one.category, one.task): one.score for one in results.read(out)[1]}
    told = {row["id"]: row for row in json.loads((out / "raw/run-0/samples/senses.json").read_text())}
    hits = 0
    for row in general_data.rows(BY_NAME["senses"], place)[:6]:
        sums = [float(logprobs(ids(f"{row['query']} {one}"))[-len(ids(f" {one}")) :].sum()) for one in row["choices"]]
        assert told[row["id"]]["loglikelihoods"] == pytest.approx(sums, abs=2e-3)
        right = max(range(len(sums)), key=sums.__getitem__) == row["gold"]
        hits += right
        assert outcomes["senses", row["id"]] == float(right)
    made = results.read(out)[0]
    assert made.category("senses").official == [pytest.approx(hits / 6)]
    told = {row["id"]: row for row in json.loads((out / "raw/run-0/samples/prose.json").read_text())}
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for row in general_data.rows(BY_NAME["prose"], place)[:6]:
        mine = float(logprobs([start, *ids(row["text"])]).sum())
        size = len(row["text"].encode())
        assert (told[row["id"]]["loglikelihood"], told[row["id"]]["bytes"]) == (pytest.approx(mine, abs=0.05), size)
        assert outcomes["prose", row["id"]] == pytest.approx(math.exp(mine / size), abs=1e-5)
