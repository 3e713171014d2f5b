"""What a gate takes: runs of sample worlds by their checklists and a policy, with a baseline, and every form written.

    python benchmarks/gate.py                     # 1,000 dialogues
    python benchmarks/gate.py --dialogues 10000

A tenth of the runs is broken (its last reply is missing), so that there is something to tell. Printed are seconds by
the clock and of this process, from the files on the disk to the last form written, one core; the target is 20 s for
1,000 dialogues. Making the dialogues and their checklists is not part of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from cm2.assure.gate import run_gate
from cm2.assure.gate_case import write_result, write_whole
from cm2.assure.gate_markdown import markdown
from cm2.assure.junit import write_junit
from cm2.assure.suite import Suite
from cm2.checklist import Task
from cm2.formats import RowWriter, write_task
from cm2.label.reference import ReferenceLabeler
from cm2.worlds import MakeConfig, make

TARGET = 20.0
POLICY = r"""
name: sample
duties:
  - id: answers
    scope: turn
    severity: critical
    question: Is the turn answered?
    check: {type: reply, pattern: "."}
  - id: no-tool-names
    scope: turn
    question: Is the reply free of names of tools?
    check: {type: not, check: {type: reply, pattern: '\b[a-z]+_[a-z_]+\b'}}
  - id: ends-with-a-reply
    question: Does the dialogue end with a reply?
    severity: minor
    check: {type: reply, pattern: "."}
"""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=1000)
    wanted = parser.parse_args().dialogues
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks, runs, policy = folder / "tasks.jsonl", folder / "runs.jsonl", folder / "policy.yaml"
        policy.write_text(POLICY)
        labeler = ReferenceLabeler()
        with RowWriter(str(tasks)) as labelled, RowWriter(str(runs)) as played:
            for number, dialogue in enumerate(make(MakeConfig(count=wanted))):
                labelled.write(write_task(labeler.label(dialogue).task, "openai"))
                if number % 10 == 0:
                    dialogue.turns[-1].steps[-1].reply = ""
                played.write(write_task(Task(dialogue), "openai"))
        suite = Suite(dialogues=str(runs), tasks=str(tasks), policy=str(policy))
        write_result(run_gate(suite), str(folder / "base.json"))
        began, used = time.perf_counter(), time.process_time()
        files = {"dialogues": str(runs), "tasks": str(tasks), "policy": str(policy)}
        result = run_gate(Suite(**files, baseline=str(folder / "base.json")))  # type: ignore[arg-type]
        write_result(result, str(folder / "result.json"))
        write_junit(result, str(folder / "junit.xml"))
        write_whole(str(folder / "summary.md"), markdown(result).encode())
        took, used = time.perf_counter() - began, time.process_time() - used
    print(f"{result.dialogues} dialogues, {len(result.cases)} cases, {len(result.duties)} duties: {result.state}")
    print(f"{took:.1f} s by the clock, {used:.1f} s of this process: {result.dialogues / used:.0f} dialogues a second")
    target = TARGET * wanted / 1000
    print(f"target {target:.0f} s of this process: {'reached' if used <= target else 'missed'}")


if __name__ == "__main__":
    main()
