"""Abilities: what an endpoint understands, learnt from what it refuses.

A 400 that names a field which not every server knows is no failure of the request: the field is left out, or said
otherwise, for the rest of the run, and the person is told once. What would change the answers' meaning unseen (a
temperature that is refused, an effort that does not exist) is not left out: it fails with the server's sentence.
"""

from __future__ import annotations

import re
from typing import Any

from cm2.formats.jsonlines import encode
from cm2.llm.client import ProviderError
from cm2.llm.config import RoleModel
from cm2.llm.request import Request
from cm2.llm.schema import response_format

_REFUSED = frozenset({400, 422, 501})
_SCHEMA = re.compile(r"response_format|json.?schema|schema|grammar|guided|structured.?output", re.IGNORECASE)
_ONE_SCHEMA = re.compile(
    r"invalid schema|schema for response_format|schema contains|grammar|unsupported json", re.IGNORECASE
)
_EFFORT = re.compile(r"reasoning.?effort", re.IGNORECASE)
_VALUE = re.compile(r"value|does not support|must be|one of", re.IGNORECASE)


class Abilities:
    """What one endpoint's model takes.

    Args:
        model: the role's model.
    """

    def __init__(self, model: RoleModel):
        self.model = model
        self.schema, self.seed, self.effort = model.structured != "prompt", model.seeded, True
        self.limit = "max_tokens"
        self._schemas: set[bytes] = set()

    def takes(self, schema: dict[str, Any]) -> bool:
        """Whether its JSON-schema mode is to be used for this schema."""
        return self.schema and not (self._schemas and encode(schema) in self._schemas)

    def fields(self, request: Request) -> dict[str, Any]:
        """The fields of a request body, but for model and messages."""
        model = self.model
        fields: dict[str, Any] = {"temperature": model.temperature, "top_p": model.top_p}
        fields[self.limit] = request.max_tokens or model.max_tokens
        fields |= effort_fields(model, request) if self.effort else {}
        fields = {name: value for name, value in fields.items() if value is not None} | model.extra
        if self.seed:
            fields.setdefault("seed", request.sample)
        if request.schema is not None and self.takes(request.schema):
            fields["response_format"] = response_format(request.schema)
        return fields

    def learn(self, error: ProviderError, request: Request, fields: dict[str, Any]) -> str | None:
        """What a refusal teaches, as a sentence for a person; None where it is a failure of the request."""
        text, name = error.message, self.model.model
        if error.status not in _REFUSED:
            return None
        if "max_tokens" in fields and "max_completion_tokens" in text:
            self.limit = "max_completion_tokens"
            return f"{name} wants max_completion_tokens; it is sent instead of max_tokens"
        if "response_format" in fields and self.model.structured == "auto" and _SCHEMA.search(text):
            if _ONE_SCHEMA.search(text) and request.schema is not None:
                self._schemas.add(encode(request.schema))
                return f"{name} refuses a schema in its JSON-schema mode; such answers are asked for by the prompt"
            self.schema = False
            return f"{name} has no JSON-schema mode here; JSON is asked for by the prompt and validated"
        if "seed" in fields and "seed" not in self.model.extra and re.search(r"\bseed\b", text):
            self.seed = False
            return f"{name} takes no seed here; requests are sent without"
        if (
            "reasoning_effort" in fields
            and _EFFORT.search(text)
            and not _VALUE.search(_EFFORT.split(text, maxsplit=1)[-1])
        ):
            self.effort = False
            return f"{name} knows no reasoning_effort; requests are sent without, whatever effort was asked for"
        return None


def effort_fields(model: RoleModel, request: Request) -> dict[str, Any]:
    """The body fields that say the effort of a request."""
    effort = request.effort or model.effort
    if effort is None:
        return {}
    return dict(model.efforts.get(effort, {"reasoning_effort": effort}))
