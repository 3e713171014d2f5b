"""`cm2 rl IN -o RUN`: checklist reinforcement learning of a model on tasks."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli import rl_verl
from cm2.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    """Add the verb `rl`."""

    @app.command()
    def rl(
        source: Annotated[str, typer.Argument(metavar="IN", help="Tasks: labelled dialogues (JSONL, .gz, Parquet).")],
        output: Annotated[str, typer.Option("-o", "--output", metavar="RUN", help="The run folder (resumable).")],
        config: Annotated[str | None, typer.Option(metavar="YAML", help="Settings from a file; flags win.")] = None,
        model: Annotated[str | None, typer.Option(help="The cold start: a folder, a name, or embedded.")] = None,
        updates: Annotated[int | None, typer.Option(help="Optimizer steps at the most. Default 200.")] = None,
        minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes of training.")] = None,
        prompts: Annotated[int | None, typer.Option(help="Tasks an update. Default 8.")] = None,
        group: Annotated[int | None, typer.Option(help="Rollouts a task. Default 8.")] = None,
        probe: Annotated[int | None, typer.Option(help="Members run before a hopeless group is stopped.")] = None,
        level: Annotated[str | None, typer.Option(help="trajectory (default), turn, step or blend.")] = None,
        normalise: Annotated[str | None, typer.Option(help="none (default) or std.")] = None,
        reading: Annotated[str | None, typer.Option(help="gated (default) or strict.")] = None,
        turn_baseline: Annotated[str | None, typer.Option(help="group (default) or survivors.")] = None,
        turn_credit: Annotated[str | None, typer.Option(help="own (default) or to_go.")] = None,
        algorithm: Annotated[str | None, typer.Option(help="grpo (default) or ppo.")] = None,
        kl_in: Annotated[str | None, typer.Option(help="ppo: the KL penalty in the loss (default) or reward.")] = None,
        backfill: Annotated[bool | None, typer.Option(help="Step level: credit earlier steps too (default).")] = None,
        gate: Annotated[str | None, typer.Option(help="ends (default), graded or chance.")] = None,
        strictness: Annotated[float | None, typer.Option(help="Of a gate that does not end. Default 0.5.")] = None,
        curriculum: Annotated[int | None, typer.Option(help="Updates in which strictness rises to 1.")] = None,
        resample: Annotated[int | None, typer.Option(help="Groups an update that may replace silent ones.")] = None,
        importance: Annotated[str | None, typer.Option(help="none (default), token or sequence.")] = None,
        lr: Annotated[float | None, typer.Option(help="Learning rate. Default 2e-5.")] = None,
        beta: Annotated[float | None, typer.Option(help="KL coefficient. Default 1e-3; 0 needs no reference.")] = None,
        kl_gradient: Annotated[str | None, typer.Option(help="k3 (default) or unbiased.")] = None,
        clip_low: Annotated[float | None, typer.Option(help="Lower clip of the ratio. Default 0.2.")] = None,
        clip_high: Annotated[float | None, typer.Option(help="Upper clip of the ratio. Default 0.2.")] = None,
        loss: Annotated[str | None, typer.Option(help="token_mean (default), sequence_mean or dr_grpo.")] = None,
        epochs: Annotated[int | None, typer.Option(help="Passes over a batch of rollouts. Default 1.")] = None,
        mini_batches: Annotated[int | None, typer.Option(help="Optimizer steps a pass. Default 1.")] = None,
        layers: Annotated[int | None, typer.Option(help="Train only the top so many layers. Default 0: all.")] = None,
        lora: Annotated[int | None, typer.Option(help="Rank of LoRA adapters. Default 0: none.")] = None,
        temperature: Annotated[float | None, typer.Option(help="Of the rollouts. Default 1.")] = None,
        max_step_tokens: Annotated[int | None, typer.Option(help="Tokens of one action. Default 128.")] = None,
        max_tokens: Annotated[int | None, typer.Option(help="Tokens of a whole rollout. Default 2048.")] = None,
        max_turns: Annotated[int | None, typer.Option(help="Turns of each dialogue that are played.")] = None,
        max_steps: Annotated[int | None, typer.Option(help="Steps of a turn. Default 8.")] = None,
        micro_tokens: Annotated[int | None, typer.Option(help="Tokens of one pass; memory. Default 1536.")] = None,
        judge: Annotated[str | None, typer.Option(help="checks (default), hybrid, llm, vote or classifier.")] = None,
        simulator_kind: Annotated[
            str | None, typer.Option("--simulator", help="auto (default), fallback, schema, replay or llm.")
        ] = None,
        models: Annotated[str | None, typer.Option(metavar="YAML", help="The models that judge and simulate.")] = None,
        seed: Annotated[int | None, typer.Option(help="Order of tasks, worlds and draws. Default 0.")] = None,
        save_every: Annotated[float | None, typer.Option(help="Seconds between checkpoints. Default 300.")] = None,
        heldout: Annotated[
            str | None, typer.Option(metavar="TASKS", help="Tasks not trained on: the best model on them is kept.")
        ] = None,
        evaluate_every: Annotated[int | None, typer.Option(help="Steps between their evaluations. Default 20.")] = None,
        benchmark_run: Annotated[
            str | None,
            typer.Option("--benchmarks", help="A small fixed part of bfcl, tau2, toolsandbox now and then; commas."),
        ] = None,
        benchmark_every: Annotated[int | None, typer.Option(help="Steps between them. Default 50.")] = None,
        benchmark_limit: Annotated[int | None, typer.Option(help="Tasks of each category. Default 4.")] = None,
        benchmark_user_base_url: Annotated[
            str | None, typer.Option(help="Where the API of their simulated user starts.")
        ] = None,
        benchmark_user_model: Annotated[str | None, typer.Option(help="Their simulated user.")] = None,
        on_alarm: Annotated[str | None, typer.Option(help="note (default), stop or off.")] = None,
        outage_minutes: Annotated[
            float | None, typer.Option(help="How long a server that is down is waited for. Default 10.")
        ] = None,
        format: Annotated[str | None, typer.Option(help="auto (default), openai or nemotron.")] = None,
        engine: rl_verl.Engine = "local",
        gpus: rl_verl.Gpus = None,
        nodes: rl_verl.Nodes = None,
        gpu: rl_verl.Gpu = None,
        template: rl_verl.Template = None,
        launch: rl_verl.Start = None,
        verl: rl_verl.Verl = None,
        as_json: Json = False,
    ) -> None:
        """Improve a policy on tasks by their checklists: roll out, judge, credit, update."""
        from cm2.train import settings
        from cm2.train.progress import hush
        from cm2.train.rl import RlConfig, train_rl

        hush()
        given = {name: value for name, value in locals().items() if name in RlConfig.__struct_fields__}
        inner: dict[str, dict[str, Any]] = {
            "ppo": {"kl_in": kl_in},
            "judging": {"kind": judge},
            "simulator": {"kind": simulator_kind},
            "alarms": {"on_alarm": on_alarm},
            "benchmarks": {
                "run": benchmark_run and [one.strip() for one in benchmark_run.split(",") if one.strip()],
                "every": benchmark_every,
                "limit": benchmark_limit,
                "user_base_url": benchmark_user_base_url,
                "user_model": benchmark_user_model,
            },
        }
        recipe = settings.load(RlConfig, config, given | {"input": source, "output": output}, inner)
        cluster: dict[str, Any] = {"gpus": gpus, "nodes": nodes, "gpu": gpu, "template": template}
        if rl_verl.asked(engine, **cluster, launch=launch, verl=verl):
            rl_verl.by_verl(recipe, as_json, **cluster, launch=launch, verl=verl)
            return
        summary = train_rl(recipe)
        done = "finished before; nothing to do" if summary["finished_before"] else f"{summary['updates']} updates"
        table = Table(title=f"{summary['run']}: {done}")
        for column in ("", "first fifth", "last fifth"):
            table.add_column(column, justify="right" if column else "left")
        for name in ("reward", "outcome"):
            table.add_row(name, *(_shown(summary[f"{part}_{name}"]) for part in ("first", "last")))
        notes = [
            f"{summary['rollouts']} rollouts ({summary['failures']} failed), "
            f"{summary['tokens_generated']:,} tokens generated, {summary['tokens_trained']:,} computed in training",
            f"{summary['seconds']:.0f} s, of it {summary['seconds_rollout']:.0f} s rollouts",
            f"KL to the start {_shown(summary['last_kl'])}; model: {summary['model']}",
        ]
        if "best" in summary:
            notes.append(
                f"held-out reward: start {_shown(summary['start_heldout_reward'])}, last "
                f"{_shown(summary['last_heldout_reward'])}; best {_shown(summary['best_heldout_reward'])} "
                f"(step {summary['best_step']}): {summary['best']}"
            )
        for name, points in summary.get("benchmarks", {}).items():
            scores = ", ".join(f"{_shown(one['score'])} (step {one['step']})" for one in points)
            notes.append(f"{name}, {points[-1]['n']} tasks, not comparable: {scores}")
        notes += [f"alarm: {alarm}" for alarm in summary.get("alarms", [])]
        emit(summary, as_json, [table, *notes, *summary["problems"]])


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
