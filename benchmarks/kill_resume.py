"""Killed and resumed: a run that is killed again and again gives the curve of one that never was.

    python benchmarks/kill_resume.py                      # 50 kills, some minutes
    python benchmarks/kill_resume.py --kills 4 --updates 10 --json

A random Llama of two layers is trained with a checkpoint after every update, held-out evaluations and a judge behind an
HTTP server. Again and again a process works on the run and is killed by SIGKILL at a random moment: so many entries
into a phase, and up to so many milliseconds into it. The phases are generation, judging, training, checkpointing,
choosing the best model, and any moment from the start of the process on.

After every kill the folder must be whole: every line but the last of metrics.jsonl reads, every checkpoint that bears
its name is what was written, no model stands there before its time. In the end the numbers of every step, the model,
the held-out evaluations and the best model must equal those of a run that was never killed, bit for bit. That holds
although a server's answers arrive when they like, because what is decoded with what does not depend on it
(`cm2.train.punctual`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:1] = [
    str(TESTS),
    str(TESTS / "train"),
]  # in place of this folder, whose modules have names of the tests' folders
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PHASES = {"generation": 0.15, "judging": 0.03, "training": 0.1, "checkpointing": 0.06, "best": 0.02, "anywhere": 2.5}
"""And how many seconds into each a kill comes at most."""
MODELS = "default: {{base_url: {url}, model: scripted, backoff: 0.01, price: {{input: 0, output: 0}}}}\n"


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--updates", type=int, default=0, help="of the run; default two for three kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128, help="rollouts that are decoded at once")
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server() as url:
        found = measure(Path(folder), url, told.kills, told.updates or 6 + told.kills, told.seed, told.batch)
    print(json.dumps(found) if told.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(0 if found["same"] and not found["faults"] else 1)


class Server:
    """The judge's model, in a process of its own: this one must have no threads when it forks."""

    def __enter__(self) -> str:
        command = [sys.executable, str(TESTS / "servers" / "scripted.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def measure(folder: Path, url: str, kills: int, updates: int, seed: int, batch: int = 128) -> dict[str, Any]:
    """What came out."""
    import tiny_run

    import cm2.train.engine  # everything that is slow to import, once for all children
    import cm2.train.heldout
    import cm2.train.keeping
    import cm2.train.trainer  # noqa: F401
    from cm2.judge.judging import Judging

    (folder / "models.yaml").write_text(MODELS.format(url=url))
    assert fork(lambda: tiny_run.make_model(folder / "start")) == 0, "no model could be made"
    tasks = tiny_run.write_tasks(folder / "tasks.jsonl", 8, checks=False)
    held = tiny_run.write_tasks(folder / "held.jsonl", 3, checks=False, prefix="held")

    def config(name: str) -> Any:
        return tiny_run.settings(
            folder / name, str(folder / "start"), tasks, updates=updates, save_every=1e-4,
            judging=Judging(kind="llm"), models=str(folder / "models.yaml"),
            heldout=held, evaluate_every=4, batch=batch, prompts=1,
        )  # fmt: skip

    began = time.monotonic()
    assert fork(lambda: train(config("straight"))) == 0, "the run that is never killed failed"
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    faults: list[str] = []
    attempts, run = 0, folder / "killed"
    order = list(PHASES)
    while done.total() < kills:
        phase = order[attempts % len(order)]
        attempts += 1
        entries, delay = rng.randint(1, 2), rng.uniform(0, PHASES[phase])
        status = fork(lambda p=phase, n=entries, d=delay: train(config("killed"), p, n, d))
        if status == -signal.SIGKILL:
            done[phase] += 1
            faults += [f"after kill {done.total()} ({phase}): {fault}" for fault in broken(run)]
        elif status == 0:
            break  # it came to its end before the kill
        else:
            faults.append(f"attempt {attempts} ({phase}) ended with {status}")
            break
    finished = fork(lambda: train(config("killed")))
    same = finished == 0 and not (different := compare(run, folder / "straight"))
    return {
        "kills": done.total(),
        "by_phase": dict(done),
        "updates": updates,
        "same": same,
        "different": different if finished == 0 else ["the run did not finish"],
        "faults": faults,
        "seconds": round(time.monotonic() - began, 1),
    }


def train(config: Any, phase: str | None = None, entries: int = 0, delay: float = 0.0) -> None:
    """Train, and be killed so many seconds after the so-manieth entry into a phase."""
    from cm2.judge.llm import LLMJudge
    from cm2.rollout.driver import Driver
    from cm2.train.best import Best
    from cm2.train.grpo import Trainer
    from cm2.train.keeping import Kept
    from cm2.train.rl import train_rl

    places: dict[str, tuple[Any, str]] = {
        "generation": (Driver, "run"),
        "judging": (LLMJudge, "_judge"),
        "training": (Trainer, "training_step"),
        "checkpointing": (Kept, "_save_checkpoint"),
        "best": (Best, "take"),
    }
    if phase == "anywhere":
        kill_in(delay)
    elif phase is not None:
        owner, name = places[phase]
        real, seen = getattr(owner, name), [0]

        def entered(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == entries:
                kill_in(delay)
            return real(*args, **kwargs)

        setattr(owner, name, entered)
    train_rl(config)


def kill_in(delay: float) -> None:
    """End this process by SIGKILL after so many seconds, whatever it is doing then."""

    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


def fork(work: Callable[[], Any]) -> int:
    """Do it in a child; 0, its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            if "KILL_LOUD" not in os.environ:
                os.dup2(quiet, 2)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def broken(run: Path) -> list[str]:
    """What is not whole in the folder of a run that was killed."""
    from cm2.train.digests import fault_of

    found = []
    if (run / "metrics.jsonl").exists():
        for line in (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:-1]:
            try:
                json.loads(line)
            except ValueError as error:
                found.append(f"metrics.jsonl: {error}")
    for folder in (run / "checkpoints").glob("step-*"):
        if fault := fault_of(folder):
            found.append(f"{folder.name}: {fault}")
    if (run / "done.json").exists() or (run / "model").exists():
        found.append("it looks finished")
    return found


def compare(mine: Path, theirs: Path) -> list[str]:
    """What differs between two runs that should be the same."""
    import tiny_run
    import torch

    found = []
    for a, b in zip(tiny_run.numbers(mine), tiny_run.numbers(theirs), strict=True):
        if changed := {name: (a.get(name), b.get(name)) for name in {*a, *b} if a.get(name) != b.get(name)}:
            found.append(f"metrics.jsonl, first at step {b['step']}: {changed}")
            break
    if (mine / "heldout.jsonl").read_bytes() != (theirs / "heldout.jsonl").read_bytes():
        found.append("heldout.jsonl")
    for name in ("model", "best"):
        a, b = tiny_run.weights(mine / name), tiny_run.weights(theirs / name)
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            found.append(name)
    return found


if __name__ == "__main__":
    main()
