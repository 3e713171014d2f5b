"""Reader: how a scripted model reads a prompt, by its structure and nothing else.

The nonce is the one that the system prompt's rule names. A line that is an opening marker with it begins data, the
next line that is the closing marker ends it; inside, a line in brackets with the nonce is a label and a line that
starts with the prefix is content. Everything else is text that speaks to the model.

It reads as gullibly as a model might: full-width and mathematical letters are letters, what is invisible is nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

PREFIX = "| "
_RULE = re.compile(r"<<<data (\S+) \.\.\.>>>")
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]")
_CONFUSED = str.maketrans("асеорхукмтгвзн‹›《》⟨⟩❮❯", "aceopxykmtrbzh<><><><>")
_PART = re.compile(r"(?:turn (\d+) step (\d+) |opening step (\d+) |)(.*)")
_TURN_THINKING = re.compile(r"private thinking of the agent in turn (\d+) step (\d+)")


@dataclass
class Block:
    """What stands between two markers: its title, its lines without prefix, and the text under each label."""

    title: str
    lines: list[str] = field(default_factory=list)
    labelled: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The content, without labels."""
        return "\n".join(self.lines)


@dataclass
class Reading:
    """A prompt as it was read: what speaks to the model, and the data."""

    nonce: str
    outside: list[str]
    blocks: list[Block]

    def block(self, title: str) -> Block | None:
        """The first block whose title starts so."""
        return next((block for block in self.blocks if block.title.startswith(title)), None)

    def parts(self, turn: int) -> list[tuple[int, str, str]]:
        """(step, part, text) of a turn: part is thinking, reply, call or response."""
        found = []
        for block in self.blocks:
            thought = _TURN_THINKING.fullmatch(block.title)
            if thought and int(thought[1]) == turn:
                found.append((int(thought[2]), "thinking", block.text))
            for label, text in block.labelled:
                place = _PART.fullmatch(label)
                if place is None or place[1] is None or int(place[1]) != turn or "because" in label:
                    continue
                word = place[4].split()[0].rstrip(":,")
                if word in ("thinking", "reply", "call", "response"):
                    found.append((int(place[2]), word, text))
        return found

    @property
    def turns(self) -> int:
        """How many turns are shown."""
        places = (re.match(r"turn (\d+) ", label) for block in self.blocks for label, _ in block.labelled)
        return max((int(place[1]) + 1 for place in places if place), default=0)

    def steps(self, turn: int) -> int:
        """How many steps of a turn are shown."""
        places = (re.match(rf"turn {turn} step (\d+)", label) for block in self.blocks for label, _ in block.labelled)
        return max((int(place[1]) + 1 for place in places if place), default=0)


def gullible(line: str) -> str:
    """A line as a careless reader sees it."""
    return _HIDDEN.sub("", unicodedata.normalize("NFKC", line)).translate(_CONFUSED).replace("\xa0", " ").strip()


def read(messages: list[dict[str, Any]]) -> Reading:
    """Read a prompt; see the module. Without a rule no marker counts, and all of it speaks to the model."""
    texts = [str(message.get("content") or "") for message in messages if message["role"] != "assistant"]
    rules = [found[1] for text in texts[:1] for found in _RULE.finditer(text)]
    nonce = rules[0] if rules else ""
    outside: list[str] = []
    blocks: list[Block] = []
    for text in texts:
        block: Block | None = None
        for line in re.split("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text):
            seen = gullible(line)
            if nonce and block is None and seen.startswith(f"<<<data {nonce}") and seen.endswith(">>>"):
                block = Block(seen[len(f"<<<data {nonce}") : -3].strip())
                blocks.append(block)
            elif block is not None and seen == f"<<<end {nonce}>>>":
                block = None
            elif block is None:
                outside.append(line)
            elif seen.startswith(f"[{nonce} ") and seen.endswith("]"):
                block.labelled.append((seen[len(nonce) + 2 : -1], ""))
            else:
                content = line.removeprefix(PREFIX)
                block.lines.append(content)
                if block.labelled:
                    label, before = block.labelled[-1]
                    block.labelled[-1] = (label, f"{before}\n{content}" if before else content)
    return Reading(nonce, outside, blocks)
