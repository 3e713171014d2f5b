"""Wording: is a question one that a judge can answer with yes or no, about what can be seen?

| fault | the question |
|---|---|
| conditional | asks under a condition: the duty itself must be stated |
| turn_number | (or its pass condition) names a turn or step: another agent takes other steps |
| atomic | asks two things: an agent that did one of them has no answer |
| observable | asks about a mind: only words, calls and answers can be seen |
| style | asks for manners or a degree that nobody can measure |
| trivial | fits any turn of any dialogue |

What stands in quotation marks or backticks is a value or a name and is not read. `atomic` is asked only of an item that
a model will judge: a check decides a compound exactly. Simple patterns, on purpose: they catch how models word such
items, and say what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cm2.checklist import Item
from cm2.label.heard import content_words

THINKING = "assistant.content.thinking"
_QUOTED = re.compile(r"`[^`\n]*`|“[^”\n]*”|\"[^\"\n]*\"|«[^»\n]*»")
_CONDITION = re.compile(
    r"\b(?:if|where|when|whenever|as) (?:any|needed|necessary|applicable|possible|so|not|available|required|relevant"
    r"|appropriate)\b|\b(?:unless|depending on|in case|provided that|assuming|if and only if)\b"
    r"|^\W*(?:if|when|whenever|should)\b",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"\b(?:turn|step)s?\s*(?:#|no\.?|number)?\s*\d+\b|\b\d+(?:st|nd|rd|th)\s+(?:turn|step)\b"
    r"|\b(?:first|second|third|fourth|fifth|last|previous|preceding|next) turn\b"
    r"|\b(?:in|at|during|by) the (?:first|second|third|fourth|fifth|last|final|previous|next) step\b",
    re.IGNORECASE,
)
_ALWAYS_VERBS = (
    "ask|tell|inform|confirm|mention|explain|provide|give|verify|cancel|apologi[sz]e|say|include|suggest|propose"
    "|recommend|retrieve|create|send|make|add|remove|delete|thank|greet|warn|advise|find|pay|identify|acknowledge"
)
_SOMETIMES_VERBS = (
    "book|check|return|list|report|show|use|search|call|request|offer|look|change|refund|transfer|charge|state|quote|pass"
    "|update|order|reserve|schedule|fetch|name|note"
)
_COMPOUND = re.compile(
    r"\?.*\?|;|\band/or\b|\bas well as (?:did|does|do|is|was|whether|\w+ing)\b"
    r"|\b(?:and|or|then|but)(?: (?:also|then|finally|subsequently|afterwards?))?"
    r" (?:did|does|do|is|are|was|were|has|have|had|whether|also"
    rf"|(?:{_ALWAYS_VERBS})(?![-\w])"
    rf"|(?:{_SOMETIMES_VERBS})(?: (?:a|an|the|it|that|this|them|for|up|to|on|at|with)\b| `))",
    re.IGNORECASE | re.DOTALL,
)
_MIND = re.compile(
    r"\b(?:assistant|agent|model|it|reply|response)(?: (?:\w+ly|really|truly))?"
    r" (?:understand|realis?e|realize|intend|believe|feel|want|try|attempt|consider|know|recogni[sz]e|remember|think"
    r"|aim|mean|plan|notice)\b"
    r"|\b(?:is|was|be|feels?|felt) (?:the )?(?:user|customer) (?:\w+ )?(?:happy|satisfied|pleased|content|confused)\b"
    r"|\bsatisf(?:y|ied|action)\b|\baware of\b",
    re.IGNORECASE,
)
_STYLE = re.compile(
    r"\b(?:polite(?:ly|ness)?|courteous(?:ly)?|empath\w+|friendl(?:y|iness)|helpful(?:ly|ness)?|concise(?:ly|ness)?"
    r"|professional(?:ly|ism)|naturally|clearly|clarity|appropriate(?:ly)?|properly|adequate(?:ly)?|reasonably"
    r"|satisfactor(?:y|ily)|effectively|efficiently|seamless(?:ly)?|smoothly|engaging"
    r"|well[- ](?:written|formatted|structured)|tone of voice"
    r"|(?:clear|natural|professional|warm|good|nice|proper) (?:and|tone|manner|way|language|reply|answer|response"
    r"|message|explanation|summary|instructions?))\b",
    re.IGNORECASE,
)
# Words that every question of a checklist may have and that say nothing of its subject.
GENERAL = frozenset(
    """assistant agent model user customer reply replies replied respond responds responded response answer answers
    answered message final visible call calls called tool tools function functions question questions request requests
    requested task tasks turn turns step steps conversation dialogue successfully correctly correct complete completed
    completes action actions perform performed performs output content information result results something address
    addressed handle handled proceed following needs end ended finish finished state states tell tells told say
    says users customers""".split()  # noqa: SIM905
)


def faults(item: Item) -> Iterator[tuple[str, str]]:
    """What is wrong with how an item is worded, as (fault, what to write instead)."""
    question = unquoted(item.question)
    if _CONDITION.search(question):
        yield "conditional", "the question has a condition; state the duty itself"
    if _PLACE.search(question) or _PLACE.search(unquoted(item.pass_condition)):
        yield "turn_number", "the question or pass condition names a turn or step; name what is said or done"
    if _MIND.search(question) and item.focus_on != THINKING:
        yield "observable", "the question is about a mind; ask for words, calls or answers that can be seen"
    if _STYLE.search(question):
        yield "style", "the question judges manners or a degree; ask for a fact, an action or a result"
    if trivial(item.question):
        yield "trivial", "the question fits any turn; name the tool, the value or the subject"
    if item.check is None and compound(item.question):
        yield "atomic", "the question asks two things; ask one, and make another item of the other"


def compound(question: str) -> bool:
    """Whether a question asks more than one thing."""
    return _COMPOUND.search(unquoted(question)) is not None


def trivial(question: str) -> bool:
    """Whether a question names no subject of its own."""
    named = any(map(str.isalnum, "".join(_QUOTED.findall(question))))
    return not named and all(word in GENERAL for word in content_words(question))


def unquoted(text: str) -> str:
    """The text with what stands in quotation marks or backticks taken out (the marks stay)."""
    return _QUOTED.sub(lambda quoted: quoted[0][0] + quoted[0][-1], text)
