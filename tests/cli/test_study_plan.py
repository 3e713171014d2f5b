"""What `cm2 study` runs: the plan of its kind of dialogues, with the flags that were given in their place."""

import msgspec
import pytest

from cm2.cli.main import main
from cm2.study.study import REAL, SAMPLE


@pytest.fixture
def planned(monkeypatch):
    """The plan that a command line leads to."""
    seen = []

    def run(config):
        seen.append(config)
        return {"seeds": config.seeds, "data": "some", "comparison": []}

    monkeypatch.setattr("cm2.study.study.run", run)

    def of(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["study", "-o", "nowhere", "--json", *arguments])
        assert stop.value.code == 0
        return seen[-1].plan

    return of


def test_without_flags_it_is_the_plan_of_the_kind(planned):
    assert planned() == SAMPLE
    assert planned("--data", "orders.jsonl") == REAL
    assert (REAL.sft_dialogues, REAL.temperature, REAL.max_step_tokens) == (360, 0.5, 96)


@pytest.mark.parametrize(("kind", "plan"), [((), SAMPLE), (("--data", "orders.jsonl"), REAL)])
def test_a_flag_replaces_its_part_only_even_by_zero(planned, kind, plan):
    assert planned(*kind, "--temperature", "0") == msgspec.structs.replace(plan, temperature=0.0)
    assert planned(*kind, "--sft-dialogues", "30", "--heldout", "9") == msgspec.structs.replace(
        plan, sft_dialogues=30, heldout=9
    )
