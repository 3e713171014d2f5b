"""Traces: the records of one trace, or of the traces of one session, put together into dialogues.

The calls of models show the conversations (see `cm2.imports.threads`); the longest is the trace's dialogue, others are
branches with their own rows. Runs of tools add the answers that no later call repeats, and say which of them failed.

A trace without the messages of any call (only an agent's input and output were recorded) becomes a dialogue of those:
what went in is the user's message, the tools that ran are calls in the order of time, what came out is the reply.
"""

from __future__ import annotations

from typing import Any

from cm2.dialogue import ToolResponse
from cm2.errors import DataError
from cm2.imports.bodies import Exchange, read_request, read_response
from cm2.imports.draft import Draft
from cm2.imports.notes import Notes, Place
from cm2.imports.talk import Message, Talk
from cm2.imports.text import Block, Call, Result, as_text, error_text, unpacked
from cm2.imports.threads import Thread, threads
from cm2.imports.work import Ran, Score, Work, iso
from cm2.judge.values import is_error

SILENT = (
    "the calls of the model were recorded without their messages; switch message contents on where the log is written "
    "(OpenTelemetry: OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT)"
)


def dialogues(format: str, works: list[Work], scores: list[Score], id: str) -> list[Draft]:
    """The dialogues of a trace or session.

    Args:
        format: the tracer.
        works: its records.
        scores: what stood in records of its own.
        id: of the first dialogue; branches add their number.

    Raises:
        DataError: there is no conversation in it.
    """
    works = sorted(works, key=lambda work: work.start)
    for work in works:
        if work.exchange is not None:
            work.exchange.trace = work.trace
    calls = [work.exchange for work in works if work.exchange is not None and work.kind == "llm"]
    calls = calls or [work.exchange for work in works if work.exchange is not None]
    found = threads(calls)
    if found:
        drafts = [_of_thread(format, thread) for thread in found]
    else:
        drafts = [_of_runs(format, works)]
    tools = [work for work in works if work.ran is not None]
    for draft in drafts:
        _answers(draft, [work.ran for work in tools if work.ran is not None])
    main = drafts[0]
    main.id = id
    for number, draft in enumerate(drafts[1:], 1):
        first, shared = found[number].exchanges[0].trace, found[number].shared
        draft.id = first if first and first != found[0].exchanges[0].trace else f"{id}#{number + 1}"
        draft.branch = {"of": id, "shared": shared}
    spans = [{exchange.span for exchange in thread.exchanges} for thread in found]
    used = {call.span for call in calls}
    others = [work for work in works if work.exchange is None or work.exchange.span not in used]
    for work in others:
        main.notes.add(work.notes)
    for number, draft in enumerate(drafts):
        mine = [work for work in works if work.exchange is not None and found and work.exchange.span in spans[number]]
        _describe(draft, works, mine if number else [*mine, *others])
    for score in [*(score for work in works for score in work.scores), *scores]:
        at = next((number for number, ids in enumerate(spans) if score.span in ids), 0)
        drafts[at].score(score.name, score.value, score.comment)
    return drafts


def _of_thread(format: str, thread: Thread) -> Draft:
    draft = Draft(format, thread.whole(), thread.tools, hosted=thread.hosted, notes=thread.notes)
    models = list(dict.fromkeys(call.model for call in thread.exchanges if call.model))
    if models:
        draft.meta["model"] = models[0] if len(models) == 1 else ", ".join(models)
    return draft


def _of_runs(format: str, works: list[Work]) -> Draft:
    """A dialogue of what went into and came out of runs without a parent, one turn each."""
    known = {work.id for work in works}
    roots = [work for work in works if work.kind == "agent" and (work.request or work.response)]
    top = [work for work in roots if work.parent is None or work.parent not in known]
    if any(not work.id.startswith("trace ") for work in top):
        top = [work for work in top if not work.id.startswith("trace ")]  # Langfuse repeats its root on the trace
    turns = top or roots[:1]
    if not turns or not any(work.request for work in turns):
        broken = next((work.broken for work in works if work.broken is not None), "no record of it holds a message")
        raise DataError(SILENT if any(work.silent for work in works) else broken)
    talk, notes = Talk(), Notes()
    tools = [work for work in works if work.ran is not None]
    for number, work in enumerate(turns):
        place = Place(notes, f"run[{work.id or work.name}]")
        talk.close()
        _asked_by(work.request, talk, place.at("input"))
        until = turns[number + 1].start if number + 1 < len(turns) else float("inf")
        for tool in tools:
            if work.start <= tool.start < until or (not number and tool.start < work.start):
                _run(tool.ran, talk, place)
        talk.close()
        read_response(work.response, talk, place.at("output"), Exchange())
    notes.made("", "only inputs and outputs were recorded; calls stand in the order in which their tools ran")
    return Draft.of(format, talk, notes)


def _asked_by(request: Any, talk: Talk, place: Place) -> None:
    """What went into a run, as what the user said."""
    try:
        read_request(request, talk, place, Exchange())
    except DataError:
        given = unpacked(request)
        texts = [one for one in given.values() if isinstance(one, str)] if isinstance(given, dict) else []
        alone = isinstance(given, dict) and len(given) == 1 and bool(texts)
        talk.say("user", texts[0] if alone else as_text(given))
        place.made("the input is no message; it stands as the user's message as it is")


def _run(ran: Ran | None, talk: Talk, place: Place) -> None:
    if ran is None:
        return
    talk.close()
    talk.act([Block(call=Call(ran.name, ran.arguments, ran.id))], place)
    if ran.result is not None:
        talk.answer(Result(ran.result, ran.id, ran.name, ran.failed), place)


def _answers(draft: Draft, ran: list[Ran]) -> None:
    """Add the answers that the conversation does not repeat, and mark those whose tool failed."""
    by_id = {one.id: one for one in ran if one.id is not None}
    place = Place(draft.notes, "tools")
    for message in draft.messages:
        one = by_id.get(str(message.get("tool_call_id"))) if message["role"] == "tool" else None
        if one is not None and one.failed and not is_error(ToolResponse(message["content"])):
            message["content"] = error_text(Result(message["content"], failed=True), place)
    last = draft.messages[-1] if draft.messages else {}
    for call in last.get("tool_calls") or []:
        one = by_id.get(str(call.get("id"))) or _asked(call, ran)
        if one is None or one.result is None:
            continue
        answer: Message = {"role": "tool", "content": error_text(Result(one.result, failed=one.failed), place)}
        if call.get("id") is not None:
            answer["tool_call_id"] = call["id"]
        draft.messages.append(answer)
        draft.notes.made(f"tools.{one.name}", "the answer is the one that the tool's own record holds")


def _asked(call: dict[str, Any], ran: list[Ran]) -> Ran | None:
    """The last run without an id of that tool with these arguments."""
    given = unpacked(call["function"]["arguments"])
    fits = [one for one in ran if one.id is None and one.name == call["function"]["name"] and one.arguments == given]
    return fits[-1] if fits else None


def _describe(draft: Draft, whole: list[Work], works: list[Work]) -> None:
    """What a reader of reports wants to know: who, when, how long, how many tokens, what went wrong. `works` are those
    of this dialogue, `whole` those of its trace or session."""
    meta = draft.meta
    for name, values in (("session", [w.session for w in whole]), ("user", [w.user for w in whole])):
        value = next((one for one in values if one is not None), None)
        if value is not None:
            meta[name] = value
    traces = list(dict.fromkeys(work.trace for work in works if work.trace))
    if len(traces) > 1:
        meta["traces"] = traces[:100]
    starts, ends = [w.start for w in works if w.start], [w.end for w in works if w.end]
    if starts and (started := iso(min(starts))) is not None:
        meta["started"] = started
        if ends and max(ends) >= min(starts):
            meta["seconds"] = round(max(ends) - min(starts), 3)
    tokens: dict[str, int] = {}
    for work in works:
        for name, count in (work.exchange.tokens if work.exchange is not None else {}).items():
            tokens[name] = tokens.get(name, 0) + count
    if tokens:
        meta["tokens"] = tokens
    errors = [f"{work.name or work.id}: {work.error}" for work in works if work.error and work.kind != "tool"]
    if errors:
        meta["errors"] = errors[:20]
    for work in works:
        if work.broken is not None:
            draft.notes.unmapped(f"span[{work.id}]", f"a call of a model that cannot be read: {work.broken}")
        if work.silent:
            draft.notes.unmapped(f"span[{work.id}]", "a call of a model without its messages")
