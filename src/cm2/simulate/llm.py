"""LLMBackend: a language model answers for the tools, in the one world that a group shares.

The model is shown the tool with its schema, what of the reference is open at this turn (see `cm2.simulate.horizon`: no
value of a later turn, of those answers only keys and types), what this session has changed, and what it has been told
that bears on the call. All of that stands fenced: it is data, whoever wrote it.

It answers with JSON of the form that the recorded answers have, or with an error of the form of the recorded errors;
an answer of another form, or one that hints (see `cm2.simulate.hints`), is asked for once more with the reason. After
that, or when the provider failed, nobody knows what the tool would have said: the simulator failed, not the agent.

Consistency against determinism: what a rollout has been told must bind what it is told next, so it is part of the
question, and the question (its bytes) is what an answer is shared under. Siblings that know the same about a call get
the same answer, whoever asks first; siblings that know different things may be told different things, each without
contradiction in itself. The answers that *siblings* were given are never shown: then the order in which rollouts
happen to run would decide what the world is.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Any

import msgspec

from cm2.dialogue import Dialogue, Tool, ToolCall, ToolResponse
from cm2.errors import Where
from cm2.judge.values import is_error
from cm2.llm import Asker, Check, Request, load
from cm2.llm.fence import Fence
from cm2.simulate.declared import Declared, result_schema
from cm2.simulate.effects import Effects, Writes
from cm2.simulate.evidence import Evidence, evidence
from cm2.simulate.hints import Hints
from cm2.simulate.horizon import Horizon, Record, keys_of
from cm2.simulate.replay import Context, canonical
from cm2.simulate.schema import ArgumentSchema
from cm2.simulate.shape import Schema, shape_of, structure_of

Count = Annotated[int, msgspec.Meta(ge=0)]
_ANY: Schema = {"anyOf": [{"type": "object"}, {"type": "array"}, {"type": "string"}]}
_ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
LONGEST = 60_000
"""Characters of an answer; a longer one is no answer of a tool."""


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a model is shown."""

    examples: Count = 6
    """Recorded answers of the called tool. More of them show its form and style better and cost as much more."""
    others: Count = 6
    """Answers of other tools on record, and answers that the session was told, that speak of the call's subject."""
    writes: Count = 40
    """Of the changes that the session made, the last so many."""
    characters: Annotated[int, msgspec.Meta(ge=200)] = 4000
    """Of each text; a longer one loses its middle."""


class LLMBackend:
    """See the module. One a world; it keeps no state of its own.

    Args:
        dialogue: the reference.
        asker: who answers (`cm2.llm.Models`).
        shown: how much the model is shown.
        sample: another number asks the same questions anew: another world of the same task.
        writes: tells whether a call changes the world, as the `World`'s.
    """

    executable = False
    asynchronous = True

    def __init__(
        self,
        dialogue: Dialogue,
        asker: Asker,
        shown: Shown | None = None,
        *,
        sample: int = 0,
        writes: Writes | None = None,
    ):
        self.dialogue, self.asker, self.sample = dialogue, asker, sample
        self.shown = Shown() if shown is None else shown
        effects = Effects(dialogue, writes)
        self._horizon = Horizon(dialogue, effects)
        self._planned = Declared(dialogue, 0, effects.is_write)
        self._asked: tuple[Context | None, Any] = (None, None)
        self._system, self._call = load("cm2.simulate", "system"), load("cm2.simulate", "call")

    def session(self) -> LLMBackend:
        """The same backend: it has no state."""
        return self

    def depends(self, call: ToolCall, context: Context) -> str:
        """A hash of the question."""
        question = self.request(call, context)
        self._asked = context, question
        packed = msgspec.json.encode([question.messages, question.schema, question.sample])
        return hashlib.blake2b(packed, digest_size=16).hexdigest()

    async def respond(self, call: ToolCall, context: Context) -> str:
        """The tool's answer.

        Raises:
            ModelError: no answer of the right form came.
            ProviderError: the provider failed.
            BudgetReached: the limit of money is reached.
        """
        asked, question = self._asked  # mostly what `depends` has just made
        if asked is not context:
            question = self.request(call, context)
        answer = await self.asker.ask(question, self.check(call, question))
        return _text(answer.value["answer"])

    def request(self, call: ToolCall, context: Context) -> Request:
        """The question about a call."""
        known = self._horizon.open(context.turn, keys_of(context.writes))
        found = evidence(call, context, known, examples=self.shown.examples, others=self.shown.others)
        good, bad = self._forms(call.name, known, context)
        return Request(
            role="simulator",
            messages=[
                {"role": "system", "content": self._system.fill(rule=self._fence.rule)},
                {"role": "user", "content": self._question(call, context, found, good, bad)},
            ],
            schema={
                "type": "object",
                "properties": {"answer": {"anyOf": [good, bad]}},
                "required": ["answer"],
                "additionalProperties": False,
            },
            prompt=f"{self._system.id} {self._call.id}",
            affinity=self.dialogue.id,
            sample=self.sample,
            stage="simulate",
            where=Where(dialogue=self.dialogue.id, turn=context.turn),
            planned={"answer": ToolResponse(self._planned.respond(call, context)).value},
        )

    def check(self, call: ToolCall, question: Request) -> Check:
        """What is wrong with an answer to this call that its schema does not say."""
        good, bad = _forms_in(question)
        usual = [one.content for one in self._horizon.records if one.call.name == call.name or one.error]
        hints = Hints(call.name, self._names, usual)

        def wrong(value: Any) -> str:
            answer = value.get("answer") if isinstance(value, dict) else None
            text = _text(answer)
            if len(text) > LONGEST:
                return f"The answer has {len(text):,} characters; a tool answers in at most {LONGEST:,}."
            if self._fence.nonce in text:
                return "The answer quotes the markers of this prompt. Answer with the service's data only."
            error = is_error(ToolResponse(text))
            if error and good == _ANY and bad.violation(answer):  # where any answer fits, an error still has its form
                return f"The answer is an error, but not of the form of this service's errors: {bad.violation(answer)}."
            return hints.found(answer, error)

        return wrong

    def _question(self, call: ToolCall, context: Context, found: Evidence, good: Schema, bad: Schema) -> str:
        block = self._fence.block
        records = [self._recorded(one) for one in found.own]
        if not any(one.error for one in found.own):  # the style of refusals, from whoever refused
            foreign = [one for one in self._horizon.open(context.turn, keys_of(context.writes)) if one.error]
            records += [self._recorded(one) for one in foreign[:2]]
        number = max(0, len(context.writes) - self.shown.writes)
        writes = [
            self._entry(f"change {number + index}", made, content)
            for index, (made, content) in enumerate(context.writes[number:], 1)
        ]
        users = [f"- {self._cut(_line(text))}" for text in self._horizon.users(context.turn)]
        heard = [
            self._entry(f"after change {one.writes}" if one.writes else "before any change", one.call, one.content)
            for one in found.heard
        ]
        return self._call.fill(
            users=block("messages of the person", "\n".join(users)),
            tool=block("tool", self._tool(call.name)),
            form=block("form", _json({"answer": good, "error": bad})),
            own=block("answers on record", "\n".join(records)) if records else "None.",
            others=block("other answers on record", "\n".join(map(self._recorded, found.others)))
            if found.others
            else "None.",
            writes=block("changes of this session", "\n".join(writes)) if writes else "Nothing.",
            heard=block("answers to this session", "\n".join(heard)) if heard else "Nothing.",
            call=block("call", f"{call.name}({_json(call.arguments)})"),
        )

    def _tool(self, name: str) -> str:
        tool = self._tools[name]
        told = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        result = result_schema(tool)
        return _json(told | ({"result": result} if result is not None else {}), ordered=False)

    def _recorded(self, record: Record) -> str:
        when = f"recorded in turn {record.turn}"
        if record.after:
            done = "; ".join(f"{made.name}({_json(made.arguments)})" for made in record.after[-3:])
            when += f", after {done}"
        return self._entry(self._cut(when), record.call, record.content)

    def _entry(self, when: str, call: ToolCall, content: str) -> str:
        """Three lines that no value can break out of: arguments and answers are JSON, without line breaks."""
        made = self._cut(f"{call.name}({_json(call.arguments)})")
        answer = self._cut(_json(ToolResponse(content).value, ordered=False))
        return f"when: {when}\ncall: {made}\nanswer: {answer}"

    def _cut(self, text: str) -> str:
        most = self.shown.characters
        if len(text) <= most:
            return text
        return f"{text[: most // 2]} …({len(text) - most} characters left out)… {text[-(most // 2) :]}"

    def _forms(self, name: str, known: list[Record], context: Context) -> tuple[Schema, Schema]:
        """The forms of the tool's answers and of its errors."""
        records = [one for one in self._horizon.records if one.call.name == name]
        good = [one.value for one in records if not one.error]
        failed = [one.value for one in records if one.error] or [
            one.value for one in self._horizon.records if one.error
        ]
        result = None if good else result_schema(self._tools[name])
        if not good and result is None:  # nobody recorded one: the form that this session has already seen
            heard = [one for one in context.heard if one.call.name == name]
            good = [ToolResponse(one.content).value for one in heard if not is_error(ToolResponse(one.content))]
        private = self._private(name, known, context)
        form = shape_of(good, private) or structure_of(result) or _ANY
        return form, shape_of(failed, private) or _ERROR

    def _private(self, name: str, known: list[Record], context: Context) -> Any:
        hidden = self._horizon.hidden(known, context.turn)
        heard = [ToolResponse(one.content).value for one in context.heard if one.call.name == name]
        told = {key for value in [*(record.value for record in known), *heard] for key in _keys(value)}

        def private(key: str) -> bool:
            return key not in told and (key in hidden or any(char.isdigit() for char in key))

        return private

    @cached_property
    def _tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in self.dialogue.tools}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._tools)

    @cached_property
    def _fence(self) -> Fence:
        return Fence.make(getattr(self.asker, "secret", ""), self.dialogue.id)


def _forms_in(question: Request) -> tuple[Schema, ArgumentSchema]:
    good, bad = (question.schema or {})["properties"]["answer"]["anyOf"]
    return good, ArgumentSchema(Tool("", parameters=bad))


def _keys(value: Any) -> set[str]:
    """Every object key of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*(_keys(item) for item in value.values()))
    return set().union(*(_keys(item) for item in value)) if isinstance(value, list) else set()


def _json(value: Any, ordered: bool = True) -> str:
    return msgspec.json.encode(canonical(value) if ordered else value, order="sorted" if ordered else None).decode()


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
