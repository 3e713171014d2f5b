"""`cm2 serve CHECKPOINT --thinking keep`: a checkpoint behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from cm2.cli.common import Json, emit, err


class Thinking(StrEnum):
    """What becomes of earlier thinking."""

    keep = "keep"
    drop = "drop"


class BackendName(StrEnum):
    """Who decodes."""

    auto = "auto"
    cm2 = "cm2"
    vllm = "vllm"
    sglang = "sglang"


def register(app: typer.Typer) -> None:
    """Add the verb `serve`."""

    @app.command()
    def serve(
        checkpoint: Annotated[
            str, typer.Argument(metavar="CHECKPOINT", help='A Hugging Face folder or name, or "embedded".')
        ],
        thinking: Annotated[
            Thinking, typer.Option(help="Whether the thinking of earlier messages is read again; training kept it.")
        ],
        name: Annotated[str, typer.Option(help="What clients call the model. Default: the folder's name.")] = "",
        backend: Annotated[BackendName, typer.Option(help="Who decodes.")] = BackendName.auto,
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
        key_env: Annotated[
            str, typer.Option(help="The environment variable that holds the API key.")
        ] = "CM2_SERVE_KEY",
        slots: Annotated[int, typer.Option(help="Choices decoded at once.")] = 16,
        queue: Annotated[int, typer.Option(help="Choices that may wait beyond these; the next is told 429.")] = 64,
        workers: Annotated[int, typer.Option(help="Threads that decode. 0: one per core.")] = 0,
        context: Annotated[int, typer.Option(help="Longest conversation in tokens. 0: the model's own.")] = 0,
        max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer, by default and at most.")] = 2048,
        max_choices: Annotated[int, typer.Option(help="The largest n of a request.")] = 16,
        max_bytes: Annotated[int, typer.Option(help="The largest request body.")] = 8 << 20,
        timeout: Annotated[float, typer.Option(help="Seconds of a request, waiting included.")] = 600.0,
        drain: Annotated[float, typer.Option(help="Seconds that running requests get after SIGTERM.")] = 60.0,
        prefix_tokens: Annotated[
            int, typer.Option(help="Tokens of answered conversations kept for their next turn.")
        ] = 32768,
        backend_args: Annotated[
            str, typer.Option(help="More flags for vLLM or SGLang, in one text: --tensor-parallel-size 2 …")
        ] = "",
        seed: Annotated[int | None, typer.Option(help="For requests that bring none.")] = None,
        attached: Annotated[bool, typer.Option("--attached", help="Also end when standard input is closed.")] = False,
        as_json: Json = False,
    ) -> None:
        """Serve a checkpoint with tools and thinking, as training read and wrote them."""
        from cm2.serve.config import ServeConfig
        from cm2.serve.run import notes
        from cm2.serve.run import serve as run
        from cm2.train import settings

        config = settings.check(
            ServeConfig,
            {
                "checkpoint": checkpoint,
                "thinking": thinking.value,
                "name": name,
                "backend": backend.value,
                "host": host,
                "port": port,
                "key_env": key_env,
                "slots": slots,
                "queue": queue,
                "workers": workers,
                "context": context,
                "max_new_tokens": max_new_tokens,
                "max_choices": max_choices,
                "max_bytes": max_bytes,
                "timeout": timeout,
                "drain": drain,
                "prefix_tokens": prefix_tokens,
                "backend_args": backend_args,
                "seed": seed,
            },
        )
        for note in notes(config):
            err.print(note, markup=False, soft_wrap=True)

        def ready(found: dict[str, Any]) -> None:
            line = f"{found['model']} at {found['base_url']} ({found['backend']}, thinking: {found['thinking']})"
            emit(found, as_json, line)
            if not as_json:
                err.print("stop with Ctrl+C; requests that have begun are finished", markup=False)

        run(config, ready, attached=attached)
