"""Threads: the conversations that the calls of a model show.

An agent sends the whole conversation with every call, so the calls of one run repeat each other; the conversation is
the longest of them. Calls are taken in the order of time:

1. its messages begin with all of a thread's messages: it continues the thread (the thread with the most messages);
2. all that it says and hears is said in a thread already: nothing new (the same call seen by two tracers);
3. it begins with the answers to a thread's last calls, or names a thread's last response as the one before: it
   continues the thread, whose history the provider remembered;
4. it begins with the end of a thread (at least one answer of the agent and what followed): it continues the thread,
   whose beginning the agent had forgotten;
5. otherwise it begins a thread. Where it shares its beginning with another, it is a branch.

System messages are not compared: an agent may be told the time in each call, or hand over to another agent. Neither are
ids nor thinking (see `cm2.imports.talk.key`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.imports.bodies import Exchange
from cm2.imports.notes import Notes
from cm2.imports.talk import Message, key

Key = tuple[Any, ...]


class Thread(msgspec.Struct):
    """One conversation.

    `shared` counts the messages that it has in common with the longest thread of its run; `exchanges` are the calls
    that it was put together from.
    """

    messages: list[Message]
    keys: list[Key]
    exchanges: list[Exchange]
    system: list[Message] = []
    shared: int = 0

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Every tool that one of the calls offered, as it was offered first."""
        found: dict[str, dict[str, Any]] = {}
        for exchange in self.exchanges:
            for tool in exchange.tools:
                found.setdefault(tool["function"]["name"], tool)
        return list(found.values())

    @property
    def hosted(self) -> set[str]:
        """The tools that the provider runs."""
        return {name for exchange in self.exchanges for name in exchange.hosted}

    @property
    def notes(self) -> Notes:
        """What was noted about the calls."""
        notes = Notes()
        for exchange in self.exchanges:
            notes.add(exchange.notes)
        return notes

    def whole(self) -> list[Message]:
        """The messages, the system's first."""
        return [*self.system, *self.messages]


def threads(exchanges: list[Exchange]) -> list[Thread]:
    """The conversations of some calls, the longest first, then in the order in which they began."""
    found: list[Thread] = []
    for exchange in sorted(exchanges, key=lambda one: one.start):
        _place(exchange, found)
    if not found:
        return []
    main = max(found, key=lambda thread: len(thread.keys))
    for thread in found:
        if thread is not main:
            thread.shared = common(thread.keys, main.keys)
    return [main, *(thread for thread in found if thread is not main)]


def _place(exchange: Exchange, found: list[Thread]) -> None:
    count = next((i for i, message in enumerate(exchange.before) if not _is_system(message)), len(exchange.before))
    system, before, after = exchange.before[:count], exchange.before[count:], exchange.after
    asked, told = [key(message) for message in before], [key(message) for message in after]
    whole = asked + told
    fitting = [thread for thread in found if thread.keys and whole[: len(thread.keys)] == thread.keys]
    if fitting:
        thread = max(fitting, key=lambda one: len(one.keys))
        return _extend(thread, exchange, system, (before + after)[len(thread.keys) :])
    for thread in found:
        if thread.keys[: len(whole)] == whole:
            thread.exchanges.append(exchange)
            return
    for thread in reversed(found):
        if _answers(before, thread) or (exchange.previous is not None and exchange.previous == _last(thread)):
            return _extend(thread, exchange, system, before + after)
    for thread in reversed(found):
        count = overlap(thread.keys, asked)
        if count:
            exchange.notes.made("", f"a call that repeats only the last {count} messages continues the conversation")
            return _extend(thread, exchange, system, (before + after)[count:])
    found.append(Thread(before + after, whole, [exchange], system))


def _is_system(message: Message) -> bool:
    return message["role"] in ("system", "developer")


def _extend(thread: Thread, exchange: Exchange, system: list[Message], more: list[Message]) -> None:
    texts = [message["content"] for message in system]
    if texts and not thread.system:
        thread.system = system
    elif texts and texts != [message["content"] for message in thread.system]:
        exchange.notes.unmapped("system", "a later call has another system message; the dialogue has the first one")
        exchange.notes.keep(f"system@{exchange.span or exchange.id or 'later'}", "\n\n".join(map(str, texts)))
    thread.messages += more
    thread.keys += [key(message) for message in more]
    thread.exchanges.append(exchange)


def _last(thread: Thread) -> str | None:
    return thread.exchanges[-1].id


def _answers(before: list[Message], thread: Thread) -> bool:
    """Whether the messages begin with answers to the calls that the thread ends with."""
    if not before or before[0]["role"] != "tool" or not thread.messages:
        return False
    asked = {call.get("id") for call in thread.messages[-1].get("tool_calls") or []} - {None}
    return before[0].get("tool_call_id") in asked


def overlap(keys: list[Key], asked: list[Key]) -> int:
    """How many messages at the end of `keys` `asked` begins with: none, or some of which one is an answer of the
    agent."""
    for count in range(min(len(keys), len(asked)), 0, -1):
        if keys[-count:] == asked[:count] and any(one[0] == "assistant" for one in asked[:count]):
            return count
    return 0


def common(left: list[Key], right: list[Key]) -> int:
    """How many messages two conversations have in common at their beginning."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
