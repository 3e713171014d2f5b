"""Guard: who may talk to the review page, and what its answers allow a browser to do.

Every request passes here, static files too, in this order:

    Host      must be a name that this server goes by: a page elsewhere whose name was pointed at this address (DNS
              rebinding) sends its own name. Else 421.
    size      a body above the limit: 413, before it is read.
    key       the address printed at the start carries a random token; it is exchanged for a cookie (HttpOnly,
              SameSite=Strict) and leaves the address bar. No cookie: 401.
    origin    what changes something must come from this very page: its Origin is this host, and it repeats a second
              token that only the page holds (a page elsewhere can send cookies along, but cannot read it). Else 403.

Answers say what a browser may do with them: nothing but this server's own script and style, no frame, no cache.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST = 256 * 1024
"""Bytes of a request's body: a duty with its checks and tests is a few thousand."""
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """See the module.

    Args:
        app: what is guarded.
        hosts: names with ports that this server goes by, in lower case.
        cookie: the cookie's name; one a port, since cookies do not tell ports apart.
    """

    def __init__(self, app: App, hosts: frozenset[str], cookie: str):
        self.app, self.hosts, self.cookie = app, hosts, cookie
        self.token = secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)
        self.csrf = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets here
        headers = _headers(scope)
        host = headers.get("host", "").lower()
        length = headers.get("content-length", "0")
        if host not in self.hosts:
            await _refuse(send, 421, "This server does not go by that name. Use the address that it printed.")
        elif not length.isdigit() or int(length) > LARGEST:
            await _refuse(send, 413, f"More than {LARGEST:,} bytes are not taken.")
        elif not self._known(headers):
            await self._enter(scope, send)
        elif scope["method"] not in SAFE and not self._from_here(headers, host):
            await _refuse(send, 403, "This did not come from the review page. Load the page again.")
        else:
            scope.setdefault("state", {})["csrf"] = self.csrf
            await self.app(scope, _bounded(receive), _with_headers(send))

    def _known(self, headers: dict[str, str]) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _same(found.value, self.session)

    async def _enter(self, scope: Scope, send: Send) -> None:
        """The one request that may come without the cookie: the page's address with the token."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        given = query.get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and _same(given, self.token):
            cookie = f"{self.cookie}={self.session}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, b"", {"location": "/", "set-cookie": cookie})
            return
        await _refuse(send, 401, "Open the address that cm2 audit serve printed: it carries the key.")

    def _from_here(self, headers: dict[str, str], host: str) -> bool:
        origin = headers.get("origin", "").lower()
        return origin in (f"http://{host}", f"https://{host}") and _same(headers.get("x-cm2-csrf", ""), self.csrf)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _headers(scope: Scope) -> dict[str, str]:
    """By name; of one that is sent twice the values are joined, which fits nothing."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key in found else text
    return found


class TooLarge(Exception):
    """A body without a length went on beyond the limit."""


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LARGEST:
            raise TooLarge
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name, value) for name, value in message["headers"] if name.decode("latin-1").lower() not in HEADERS]
            message["headers"] = own + [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        await send(message)

    return sent


async def _refuse(send: Send, status: int, text: str) -> None:
    await _answer(send, status, text.encode() + b"\n", {"content-type": "text/plain; charset=utf-8"})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    all_headers = {**headers, **HEADERS, "content-length": str(len(body)), "connection": "close"}
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()]})
    await send({"type": "http.response.body", "body": body})
