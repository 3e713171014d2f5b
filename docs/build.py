"""Fill the documentation's result tables and pictures from the last demo and studies: `make docs`.

A run lives in runs/NAME; its table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` on any page, its
picture in docs/images/NAME.png. A folder with `seed-0`, `seed-1` … is a study. Numbers are written as they came out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LABELS = {"reward": "checklist reward", "strict_pass": "strict pass", "outcome": "true outcome"}


def table(rows: list[dict[str, Any]], start: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    """A Markdown table of start, SFT and RL with the paired difference; (n) is the number of tasks."""
    head = "| dialogues | decoding | measure | start (n) | SFT | RL | RL − SFT (95 %) | n |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        first = start.get((row["split"], row["mode"], row["metric"]))
        told = "–" if first is None else f"{first['mean']:.2f} ({first['n']})"
        change = f"{row['difference']:+.3f} ({row['low']:+.3f} … {row['high']:+.3f})"
        names = f"{row['split']} | {row['mode']} | {LABELS[row['metric']]}"
        lines.append(f"| {names} | {told} | {row['before']:.3f} | {row['after']:.3f} | {change} | {row.get('n', '')} |")
    return "\n".join(lines)


def started(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What the untrained model scored, by split, mode and measure."""
    found = {}
    for file in sorted((folder / "eval").glob("start-*/summary.json")):
        one = json.loads(file.read_text())
        for metric in LABELS:
            if one.get(metric):
                found[one["split"], one["mode"], metric] = one[metric]
    return found


def study_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of a study: the difference over all tasks, and over seeds."""
    head = "| dialogues | decoding | measure | SFT | RL | RL − SFT (95 % over tasks) | by seed | 95 % over seeds | n |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        change = f"{row['difference']:+.3f} ({row['low']:+.3f} … {row['high']:+.3f})"
        seeds = ", ".join(f"{value:+.3f}" for value in row["by_seed"])
        over = f"{row['seeds_low']:+.3f} … {row['seeds_high']:+.3f}" if len(row["by_seed"]) > 1 else "–"
        names = f"{row['split']} | {row['mode']} | {LABELS[row['metric']]}"
        lines.append(
            f"| {names} | {row['before']:.3f} | {row['after']:.3f} | {change} | {seeds} | {over} | {row['n']} |"
        )
    return "\n".join(lines)


def curve(axis: Any, run: Path, name: str, colour: str, label: str | None) -> None:
    """A measure of the training rollouts, update by update, with the mean of five."""
    metrics = [json.loads(line) for line in (run / "rl" / "metrics.jsonl").read_text().splitlines()]
    found = [(one["step"], one[name]) for one in metrics if one.get(name) is not None]
    if not found:
        return
    steps, values = zip(*found, strict=True)
    smooth = [sum(values[max(0, i - 4) : i + 1]) / len(values[max(0, i - 4) : i + 1]) for i in range(len(values))]
    axis.plot(steps, values, ".", color=colour, alpha=0.3)
    axis.plot(steps, smooth, color=colour, label=label)


def bars(axis: Any, runs: list[Path]) -> None:
    """The reward of start, SFT and RL on every evaluation, over seeds; a line each is a 95 % interval of one run."""
    split = [place for place in ("heldout", "unseen") if (runs[0] / "eval" / f"sft-{place}-greedy").is_dir()]
    names = [(place, mode) for place in split for mode in ("greedy", "sampled")]
    for offset, (agent, colour) in enumerate((("start", "#9ca3af"), ("sft", "#60a5fa"), ("rl", "#1d4ed8"))):
        for place, (where, mode) in enumerate(names):
            files = [run / "eval" / f"{agent}-{where}-{mode}" / "summary.json" for run in runs]
            values = [json.loads(file.read_text())["reward"] for file in files if file.exists()]
            if not values:
                continue
            label = agent.upper() if place == 0 and agent != "start" else agent if place == 0 else None
            middle = place + (offset - 1) * 0.27
            axis.bar(middle, sum(one["mean"] for one in values) / len(values), 0.25, color=colour, label=label)
            for number, one in enumerate(values):
                x = middle + (number - (len(values) - 1) / 2) * 0.06
                axis.plot([x, x], [one["low"], one["high"]], color="#374151", linewidth=1)
    axis.set(title="checklist reward, dialogues never trained on", ylim=(0, 1))
    axis.set_xticks(range(len(names)), [f"{where}\n{mode}" for where, mode in names])
    axis.legend(frameon=False, ncols=3)


def picture(runs: list[Path], target: Path) -> None:
    """The reward curves of RL, and start, SFT and RL side by side with their intervals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1, 1.25))
    for number, run in enumerate(runs):
        for name, colour in (("reward", "#2563eb"), ("outcome", "#059669")):
            curve(left, run, name, colour, LABELS[name] if number == 0 else None)
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    left.set(xlabel="update", title=f"training rollouts{seeds} (mean of 5 updates)", ylim=(0, 1))
    left.legend(frameon=False)
    bars(right, runs)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=130)
    plt.close(figure)


def fill(name: str, text: str) -> int:
    """Put the text between the marks of that name in every page; returns how many had them."""
    begin, end, count = f"<!-- {name}:begin -->", f"<!-- {name}:end -->", 0
    for page in PAGES:
        content = page.read_text()
        if begin in content and end in content:
            head, rest = content.split(begin, 1)
            page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")
            count += 1
    return count


def main() -> None:
    """Fill what there is a result for."""
    done = 0
    for name in ("demo", "study", "study-taskmaster4"):
        folder = ROOT / "runs" / name
        file = folder / "summary.json"
        if not file.exists():
            print(f"{file} is absent: its table and picture stay as they are", file=sys.stderr)
            continue
        rows = json.loads(file.read_text())["comparison"]
        seeds = sorted(folder.glob("seed-*"))
        done += fill(name, study_table(rows) if seeds else table(rows, started(folder)))
        picture(seeds or [folder], ROOT / "docs" / "images" / f"{name}.png")
    print(f"{done} tables filled")


if __name__ == "__main__":
    main()
