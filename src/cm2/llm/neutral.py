"""Neutral text: hostile text with everything defused that could pass for structure.

A prompt has structure of its own (the markers, labels and nonce of `cm2.llm.fence`) and that of the model behind it
(chat-template tokens, code fences); and text may hide things from one reader that another one sees (invisible
characters, exotic spaces). `neutral` takes all of it out of a text and leaves JSON, code and any script readable.

A model that quotes from a prompt quotes neutral text; `stands` holds such a quotation against the original.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Every pattern starts with a plain class of characters: that is what `re` scans for fast.
_NEWLINE = re.compile("[\r\v\f\x85\u2028\u2029](?:(?<=\r)\n)?")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]")
# Emoji, and scripts that write with joiners: there a joiner is spelling, anywhere else it hides or splits something.
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u2328\u2388-\u23ff\u24c2\u25aa-\u25fe\u2600-\u2757"
    "\u275b-\u2767\u2776-\u27bf\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_JOINED = "\u0620-\u06ff\u0700-\u077f\u07ca-\u07ff\u08a0-\u0dff\u0f00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18af"
_HIDDEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(
    f"[{_HIDDEN}\u200c\u200d\ufe0e\ufe0f](?:(?<=[{_HIDDEN}])"
    f"|(?<=\u200d)(?:(?<![{_EMOJI}{_JOINED}]\u200d)(?<![{_EMOJI}]\ufe0f\u200d)|(?![{_EMOJI}{_JOINED}]))"
    f"|(?<=\u200c)(?:(?<![{_JOINED}]\u200c)|(?![{_JOINED}]))"
    f"|(?<=\ufe0f)(?<![{_EMOJI}]\ufe0f)(?!\u20e3)|(?<=\ufe0e)(?<![{_EMOJI}]\ufe0e))"
)

_OPEN = "<\uff1c\ufe64\u2039\u2329\u27e8\u3008\u276c\u276e\u29fc\u1438\u02c2"
_DOUBLE = "\xab\u226a\u300a\u27ea\u2aa1\u2af7\u22d8"
_CLOSE = ">\uff1e\ufe65\u203a\u232a\u27e9\u3009"
_BAR = "|\uff5c\u2502\u2503\u2223\u01c0\xa6\u2758\u23d0\uffe8\u05c0"
_RUN = re.compile(
    f"[{_OPEN}{_DOUBLE}](?:[{_OPEN}{_DOUBLE}]{{2,}}|[{_DOUBLE}]|(?<=[{_DOUBLE}])[{_OPEN}])"  # <<<, and what looks so
)
_FENCE = re.compile("[`~\uff40](?:(?<=`)`{2,}|(?<=~)~{2,}|(?<=\uff40)\uff40{2,})")
_TAGS = (
    "s|bos|eos|pad|unk|mask|sop|eop|system|user|assistant|human|developer|tools?|functions?|model|ipython|think|thinking|"
    r"reasoning|answer|invoke|sys|(?:start|end|begin)_\w+|tool_\w+|function_\w+|im_\w+|extra_id_\d+|reserved_\w+|"
    r"unused\d+|eot_id|\w+:tool_call|turn\|"
)
_WORDS = r"INST|SYS|SYSTEM|USER|ASSISTANT|BOS|EOS|IMG|THINK|ARGS|CALL_ID|gMASK|[A-Z]{1,20}_[A-Z_]{1,20}"
_TOKEN = re.compile(
    rf"[{_OPEN}\[](?:(?<!\[)(?=[{_BAR}]"  # <|im_start|>, <|eot_id|>, <|channel|>, and their full-width cousins
    rf"|(?i:[{_OPEN}]?/?(?:{_TAGS})(?:[{_CLOSE}\s=]|$)))"  # <s>, <<SYS>>, </tool_call>, <start_of_turn>
    rf"|(?<=\[)(?=/?(?:{_WORDS})\]))"  # [INST], [/INST], [TOOL_CALLS]
)

_LOOKALIKES = {
    "b": "\u042c\u0184\u0185\u0412", "c": "\u0441\u03f2\u0421", "d": "\u0501", "g": "\u0261", "h": "\u04bb\u041d",
    "j": "\u0458\u0408", "k": "\u043a\u041a\u039a", "m": "\u043c\u041c\u039c", "n": "\u0578\u039d",
    "p": "\u0440\u03c1\u0420", "q": "\u051b", "r": "\u0433", "s": "\u0455\u0405", "t": "\u0442\u0422\u03a4",
    "v": "\u03bd\u0475\u0474", "w": "\u051d\u051c", "x": "\u0445\u0425\u03c7", "z": "\u1d22\u0396",
    "3": "\u0417\u0437", "6": "\u0431",
}  # fmt: skip
_REMOVED = "(\u2026)"  # three characters: too many for `_nonce` to match across
_PREFIXED = re.compile(r"^\| ?")
_JOINERS = re.compile("[\u200c\u200d\ufe0e\ufe0f]")


def neutral(text: str, nonce: str = "") -> str:
    """The text with everything defused that could pass for structure; a second time changes nothing.

    Lines end in \\n, exotic spaces are plain ones, invisible and control characters are gone (joiners stay where they
    are spelling: emoji, Arabic, Indic scripts), runs of <<< and chat-template tokens are split by a space, code fences
    become quotes, and what looks like the nonce becomes (…). JSON, code and any script stay readable.
    """
    if not text.isascii():
        text = _SPACE.sub(" ", _NEWLINE.sub("\n", text))
        text = _INVISIBLE.sub("", _CONTROL.sub("", text))
        while (again := _INVISIBLE.sub("", text)) != text:  # what was removed may have stood beside a joiner
            text = again
    else:
        text = _CONTROL.sub("", _NEWLINE.sub("\n", text))
    if nonce:
        text = _nonce(nonce).sub(_REMOVED, text)
    text = _RUN.sub(lambda run: " ".join(run[0]), text)
    text = _TOKEN.sub(lambda token: token[0] + " ", text)
    return _FENCE.sub(lambda fence: "'" * len(fence[0]), text)


def stands(snippet: str, text: str, nonce: str = "") -> bool:
    """Whether a quotation from a prompt stands in the original text.

    Both are made neutral and their white space is folded; the line prefixes of a quotation over several lines may have
    been quoted too. A quotation of nothing stands nowhere.
    """
    within, quoted = _fold(neutral(text, nonce)), neutral(snippet, nonce)
    first, *rest = quoted.split("\n")
    bare = [_PREFIXED.sub("", line) for line in rest]
    if not _fold(" ".join([_PREFIXED.sub("", first), *bare])):
        return False
    readings = (quoted, " ".join([first, *bare]), " ".join([_PREFIXED.sub("", first), *bare]))
    return any(_fold(reading) in within for reading in readings)


def _fold(text: str) -> str:
    return " ".join((text if text.isascii() else _JOINERS.sub("", text)).split())


@lru_cache(maxsize=1024)
def _nonce(nonce: str) -> re.Pattern[str]:
    """The nonce in any alphabet that looks like ours, upper case and a little broken up included."""
    return re.compile(r"[\W_]{0,2}".join(f"[{''.join(map(re.escape, _alike(char)))}]" for char in nonce))


def _alike(char: str) -> str:
    """A character of the nonce and those that look like it: full-width, mathematical, circled, foreign."""
    wide = chr(ord(char) + 0xFEE0)
    if char.isdigit():
        styles = "".join(chr(0x1D7CE + 10 * style + int(char)) for style in range(5))
    else:
        place = ord(char) - ord("a")
        styles = "".join(chr(0x1D400 + 26 * style + place) for style in range(26))
        styles += char.upper() + chr(ord(wide) - 32) + chr(0x24D0 + place)
    return char + wide + styles + _LOOKALIKES.get(char, "")
