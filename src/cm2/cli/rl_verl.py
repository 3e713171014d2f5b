"""`cm2 rl --engine verl`: a cluster run from a recipe: its configuration, checked, and its command, script or start."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import emit, err
from cm2.errors import CheckFailed, ConfigError, DataError, MissingExtra, Where
from cm2.formats.target import replacing

if TYPE_CHECKING:
    from cm2.train.rl_config import RlConfig

Engine = Annotated[str, typer.Option("--engine", help="local (default), or verl: writes a cluster run.")]
Gpus = Annotated[int | None, typer.Option("--gpus", help="verl: devices that train and generate. Default 8.")]
Nodes = Annotated[int | None, typer.Option("--nodes", help="verl: machines that they are in. Default 1.")]
Gpu = Annotated[str | None, typer.Option("--gpu", help="verl: h100 (default), h200, a100, l40s or rtx4090.")]
Template = Annotated[str | None, typer.Option("--template", help="verl: chat template, model (default) or cm2.")]
Start = Annotated[str | None, typer.Option("--launch", help="verl: print (default), run, ray or slurm.")]
Verl = Annotated[list[str] | None, typer.Option("--verl", metavar="KEY=VALUE", help="verl: a setting of its own.")]
LAUNCHES = ("print", "run", "ray", "slurm")


def asked(engine: str, **flags: Any) -> bool:
    """Whether verl is to run it.

    Raises:
        ConfigError: the engine is unknown, or a flag is given that only verl reads.
    """
    if engine == "verl":
        return True
    if engine != "local":
        raise ConfigError(f"there is no engine {engine!r}", fix="use local or verl")
    given = [name.replace("_", "-") for name, value in flags.items() if value]
    if given:
        raise ConfigError(f"--{given[0]} is read by the engine verl only", fix="add --engine verl, or leave it out")
    return False


def by_verl(
    recipe: RlConfig,
    as_json: bool,
    *,
    gpus: int | None = None,
    nodes: int | None = None,
    gpu: str | None = None,
    template: str | None = None,
    launch: str | None = None,
    verl: list[str] | None = None,
) -> None:
    """Write, check and print, start or script a run.

    Raises:
        ConfigError: verl or the cluster cannot do what the recipe says, or the folder holds another run.
        CheckFailed: verl does not take the configuration.
    """
    from cm2.train import settings
    from cm2.train.tasklist import read_all
    from cm2.verl import check as checking
    from cm2.verl import launch as launching
    from cm2.verl.cluster import Cluster
    from cm2.verl.config import FILE, steps_of, written

    launch, overrides = launch or "print", list(verl or ())
    if launch not in LAUNCHES:
        raise ConfigError(f"there is no way to launch {launch!r}", fix=f"use {', '.join(LAUNCHES)}")
    if odd := next((word for word in overrides if "=" not in word), None):
        raise ConfigError(
            f"--verl {odd} is no KEY=VALUE", fix="write it as on verl's command line: trainer.save_freq=5"
        )
    flags = {"gpus": gpus, "nodes": nodes, "gpu": gpu, "template": template}
    cluster = settings.check(Cluster, {name: value for name, value in flags.items() if value is not None})
    made = written(recipe, cluster)
    found = read_all(recipe.input, recipe.format)
    if len(found.tasks) < recipe.prompts:
        raise DataError(
            f"{len(found.tasks)} tasks are fewer than the {recipe.prompts} of one update",
            where=Where(file=recipe.input),
            fix="give more tasks or lower --prompts",
        )
    if launch == "run" and not checking.installed():
        raise MissingExtra("starting verl", "verl")
    folder = Path(recipe.output).resolve()
    file = folder / FILE
    keep(file, made.text)
    with contextlib.redirect_stdout(sys.stderr):  # verl prints; standard output belongs to the summary
        report = checking.check(str(file), overrides)
    script = None
    if launch in ("ray", "slurm"):
        script = folder / ("ray-job.sh" if launch == "ray" else "slurm.sh")
        text = launching.ray_job(file, overrides) if launch == "ray" else launching.slurm(file, overrides, cluster)
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)
    summary: dict[str, Any] = {
        "run": recipe.output,
        "engine": "verl",
        "config": str(file),
        "command": launching.shown(file, overrides),
        "launch": launch,
        "script": None if script is None else str(script),
        "gpus": cluster.gpus,
        "nodes": cluster.nodes,
        "steps": steps_of(recipe),
        "tasks": len(found.tasks),
        "checked": checking.installed(),
        "check": [{"what": line.what, "outcome": line.outcome, "said": line.said} for line in report.lines],
        "notes": list(made.notes),
    }
    if report.good and launch == "run":
        if not as_json:
            err.print(f"cm2: {summary['command']}", markup=False, soft_wrap=True)
        launching.run(file, overrides)
    emit(summary, as_json, shown(summary))
    if not report.good:
        bad = next(line for line in report.lines if line.outcome == "bad")
        raise CheckFailed(f"{bad.what}: {bad.said}", fix=f"python -m cm2.verl check {file}")


def keep(file: Path, text: str) -> None:
    """Write the configuration, unless the folder has checkpoints of another one.

    Raises:
        ConfigError: it has.
    """
    if file.exists() and file.read_text(encoding="utf-8") != text and (file.parent / "checkpoints").exists():
        raise ConfigError(
            f"{file.parent} holds another run", fix="give -o another folder, or repeat the run's own command"
        )
    with replacing(file) as draft:
        draft.write_text(text, encoding="utf-8")


def shown(summary: dict[str, Any]) -> list[Any]:
    """The summary for a person."""
    table = Table(title=f"{summary['run']}: {summary['steps']:,} steps on {summary['gpus']} devices", show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for line in summary["check"]:
        table.add_row(line["what"], escape(line["outcome"] + (f": {line['said']}" if line["said"] else "")))
    said = [*(f"note: {note}" for note in summary["notes"]), f"configuration: {summary['config']}"]
    if not summary["checked"]:
        said.append(f"not checked by verl, which is not installed here: python -m cm2.verl check {summary['config']}")
    if summary["script"]:
        how = "sbatch" if summary["launch"] == "slurm" else "sh"
        said.append(f"script: {how} {summary['script']}")
    elif summary["launch"] == "print":
        said.append(f"command: {summary['command']}")
    return [table, *map(escape, said)]
