"""Run: load a checkpoint, listen, and on SIGTERM finish what has begun."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from cm2.errors import ConfigError, MissingExtra
from cm2.listening import bound, is_loopback
from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Backend
from cm2.serve.config import ServeConfig

Ready = Callable[[dict[str, Any]], None]


def serve(config: ServeConfig, ready: Ready, *, attached: bool = False) -> None:
    """Serve until SIGTERM or Ctrl+C; requests that have begun are finished, a second signal ends them.

    Args:
        config: see `ServeConfig`.
        ready: is told the address and what is served, once requests are taken.
        attached: also end when standard input is closed, so that the endpoint never outlives whoever started it.

    Raises:
        ConfigError: the port is taken, or the checkpoint cannot be loaded.
        MissingExtra: the serve or the train extra is not installed.
    """
    try:
        import uvicorn

        from cm2.serve.app import Endpoint
    except ImportError as error:
        raise MissingExtra("the endpoint", "serve") from error

    listener = bound(config.host, config.port)
    with listener:
        template, backend = make_backend(config)
        endpoint = Endpoint(config, template, backend)
        url = f"http://{_written(config.host)}:{listener.getsockname()[1]}/v1"
        told = {"base_url": url, "model": config.model, "backend": backend.name, "thinking": config.thinking}

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    ready(told | {"context": endpoint.context, "key": bool(config.key), "slots": config.slots})

            def handle_exit(self, sig: int, frame: Any) -> None:
                endpoint.draining = True
                backend.abandon()
                super().handle_exit(sig, frame)

        settings = uvicorn.Config(
            endpoint.app(),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=max(1, round(config.drain)),
        )
        server = Server(settings)
        if attached:
            threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
        # uvicorn raises the signal again once it has stopped: having drained, we are done and not killed
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
        try:
            server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)
        if not server.started:
            raise ConfigError("the endpoint could not be started; the reason stands above")


def make_backend(config: ServeConfig) -> tuple[ChatTemplate, Backend]:
    """The checkpoint's template, and who decodes.

    Raises:
        ConfigError: the checkpoint cannot be loaded, or the named backend is not installed.
    """
    from cm2.serve.choose import choose

    chosen = choose(config)
    if chosen is not None:
        return chosen
    from cm2.serve.local import Local
    from cm2.train.embedded import load_model

    _hush()
    model, tokenizer = load_model(config.checkpoint)
    template = ChatTemplate(tokenizer)
    backend = Local(
        _placed(model),
        template,
        context=config.context,
        slots=config.slots,
        workers=config.workers,
        prefix_tokens=config.prefix_tokens,
    )
    return template, backend


def _hush() -> None:
    """No progress bars and remarks of transformers: standard error is a server's log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _placed(model: Any) -> Any:
    import torch

    return model.to("cuda", torch.bfloat16) if torch.cuda.is_available() else model


def notes(config: ServeConfig) -> list[str]:
    """What whoever starts an endpoint should know."""
    found = []
    if not config.key:
        found.append(f"there is no API key: everyone on this machine may ask; {config.key_env} sets one")
    if not is_loopback(config.host):
        found.append("other machines reach this endpoint over plain HTTP: put a proxy with TLS in front of it")
    return found


def _written(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _end_with_stdin(server: Any) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.handle_exit(signal.SIGTERM, None)
