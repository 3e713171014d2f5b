"""Fill the documentation's result tables and picture from the last demo (and study): `make docs`.

Tables stand between `<!-- demo:begin -->` and `<!-- demo:end -->` (or study:…); numbers are written as they came out.
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


def picture(folder: Path, summary: dict[str, Any], target: Path) -> None:
    """The reward curve of RL, and start, SFT and RL side by side with their intervals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1, 1.25))
    metrics = [json.loads(line) for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
    steps = [one["step"] for one in metrics]
    for name, colour in (("reward", "#2563eb"), ("outcome", "#059669")):
        values = [one[name] for one in metrics]
        window = 5
        smooth = [
            sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1])
            for i in range(len(values))
        ]
        left.plot(steps, values, ".", color=colour, alpha=0.3)
        left.plot(steps, smooth, color=colour, label=LABELS[name])
    left.set(xlabel="update", title="training rollouts (mean of 5 updates)", ylim=(0, 1))
    left.legend(frameon=False)
    names = [("heldout", "greedy"), ("heldout", "sampled"), ("unseen", "greedy"), ("unseen", "sampled")]
    for offset, (agent, colour) in enumerate((("start", "#9ca3af"), ("sft", "#60a5fa"), ("rl", "#1d4ed8"))):
        for place, (split, mode) in enumerate(names):
            file = folder / "eval" / f"{agent}-{split}-{mode}" / "summary.json"
            if not file.exists():
                continue
            value = json.loads(file.read_text())["reward"]
            error = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
            label = agent.upper() if place == 0 and agent != "start" else agent if place == 0 else None
            right.bar(
                place + (offset - 1) * 0.27, value["mean"], 0.25, yerr=error, color=colour, label=label, capsize=2
            )
    right.set(title="checklist reward, dialogues never trained on", ylim=(0, 1))
    right.set_xticks(range(len(names)), [f"{split}\n{mode}" for split, mode in names])
    right.legend(frameon=False, ncols=3)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=130)


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
    for name, folder in (("demo", ROOT / "runs" / "demo"), ("study", ROOT / "runs" / "study")):
        file = folder / "summary.json"
        if not file.exists():
            print(f"{file} is absent: its tables stay as they are", file=sys.stderr)
            continue
        summary = json.loads(file.read_text())
        done += fill(name, table(summary["comparison"], started(folder) if name == "demo" else {}))
        if name == "demo":
            picture(folder, summary, ROOT / "docs" / "images" / "demo.png")
    print(f"{done} tables filled")


if __name__ == "__main__":
    main()
