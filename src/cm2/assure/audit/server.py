"""Server: the review page on this machine, or, if told so, for a team."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2
import msgspec

from cm2.assure.audit.api import Api, ChangeBody, ReviewBody, answer
from cm2.assure.audit.book import Book
from cm2.assure.audit.guard import LARGEST, App, Guard, TooLarge
from cm2.errors import ConfigError, MissingExtra
from cm2.listening import bound, is_loopback

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtra("the review page", "review") from error

Ready = Callable[[str, list[str]], None]
FILES = {"audit.js": "text/javascript", "audit.css": "text/css"}


class ServeConfig(msgspec.Struct, kw_only=True, frozen=True):
    """Where the page is served."""

    place: str
    """The audit: a file or a database URL."""
    host: str = "127.0.0.1"
    """The address to listen on. One that others reach needs `allow_remote`."""
    port: int = 8477
    """0 takes any that is free."""
    allow_remote: bool = False
    """Others may reach it: over plain HTTP, so that the key and the dialogues can be read on the way. Better put a
    proxy with TLS in front and leave it on this machine."""
    allow_host: tuple[str, ...] = ()
    """Further names, with the port where it is not the usual one, by which browsers call it: a proxy's."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.allow_remote:
            raise ConfigError(
                f"{self.host} is reached from other machines",
                fix="leave --host out, or add --allow-remote if you mean it",
            )


def make_app(book: Book, hosts: frozenset[str], port: int) -> Guard:
    """The application behind its guard."""
    api = Api(book)
    page = _template()

    def index(request: Request) -> Response:
        return HTMLResponse(page.render(csrf=request.state.csrf))

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(_read(name), media_type=FILES[name])

    def state(request: Request) -> Response:
        return _json(*answer(lambda: api.state(request.query_params.get("reviewer", ""))))

    def log(request: Request) -> Response:
        return _json(*answer(api.log))

    def case(request: Request) -> Response:
        reviewer = request.query_params.get("reviewer", "")
        return _json(*answer(lambda: api.case(request.path_params["id"], reviewer)))

    async def review(request: Request) -> Response:
        return await _write(request, ReviewBody, api.review)

    async def change(request: Request) -> Response:
        return await _write(request, ChangeBody, api.change)

    routes = [
        Route("/", index),
        Route("/static/{name}", file),
        Route("/api/state", state),
        Route("/api/log", log),
        Route("/api/cases/{id:int}", case),
        Route("/api/review", review, methods=["POST"]),
        Route("/api/duty", change, methods=["POST"]),
    ]
    app: Any = Starlette(routes=routes)
    inner: App = app
    return Guard(inner, hosts, f"cm2_audit_{port}")


def serve_audit(config: ServeConfig, ready: Ready) -> None:
    """Serve until interrupted.

    Args:
        config: see `ServeConfig`.
        ready: is told the address to open, and what its reader should know.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine.
        DataError: there is no audit.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("the review page", "review") from error

    with Book(config.place) as book, bound(config.host, config.port) as listener:
        listener.listen()
        port = int(listener.getsockname()[1])
        guard = make_app(book, _hosts(config, port), port)
        ready(f"http://{_bracketed(_reached(config.host))}:{port}/?token={guard.token}", _notes(config))
        settings = uvicorn.Config(guard, log_level="warning", access_log=False, server_header=False, lifespan="off")
        uvicorn.Server(settings).run(sockets=[listener])


async def _write(request: Request, body: Any, call: Callable[[Any], Any]) -> Response:
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind != "application/json":
        return _json(415, {"error": "send application/json"})
    try:
        sent = await request.body()
    except TooLarge:
        return _json(413, {"error": f"more than {LARGEST:,} bytes are not taken"})
    return _json(*await run_in_threadpool(answer, lambda: call(msgspec.json.decode(sent, type=body))))


def _json(status: int, value: Any) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _hosts(config: ServeConfig, port: int) -> frozenset[str]:
    names = {_bracketed(config.host)}
    if is_loopback(config.host):
        names |= {"127.0.0.1", "localhost", "[::1]"}
    elif config.host in ("0.0.0.0", "::"):
        names |= {"127.0.0.1", "localhost", socket.gethostname().lower()}
    return frozenset({f"{name}:{port}" for name in names} | {name.lower() for name in config.allow_host})


def _reached(host: str) -> str:
    return {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


def _notes(config: ServeConfig) -> list[str]:
    if is_loopback(config.host):
        return []
    return ["other machines reach this page over plain HTTP: who can read the network reads the key and the dialogues"]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_read("audit.html.jinja"))


def _read(name: str) -> str:
    return (resources.files("cm2.assure.audit") / "page" / name).read_text(encoding="utf-8")
