"""Talk: a script in which a customer and an agent under rules meet: what the scenes of all domains share.

A dialogue is an opening scene and follow-up scenes until it has its length. A scene adds one or more turns, or none
where it does not apply. What earlier scenes found out is in `notes`.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence
from typing import Any

from cm2.worlds.domain import Options
from cm2.worlds.engine import Engine, Record
from cm2.worlds.script import Script
from cm2.worlds.toolbox import Toolbox
from cm2.worlds.wording import expand

_FIRST = "Ana Ben Carla David Emma Frank Grace Henry Ivan Julia Karim Lena Maria Nora Omar Peter Rosa Sara Tom Vera"
_LAST = (
    "Adams Brandt Costa Diaz Evans Fischer Garcia Hoffman Ito Jensen Kaya Lopez Moreau Novak Okafor Patel Quinn Rossi"
)
_MONTHS = "January February March April May June July August September October November December"
FIRST_NAMES, LAST_NAMES, MONTHS = _FIRST.split(), _LAST.split(), _MONTHS.split()
CITIES = ("Lima", "Oslo", "Rome", "Cairo", "Paris", "Delhi", "Tokyo", "Berlin", "Madrid", "Dublin", "Boston", "Vienna")
TODAY = datetime.date(2025, 5, 12)
_CONFIRM = (
    "{Before you change anything, say what you are about to do and wait for the customer's yes"
    "|Describe every booking, change or payment first and do it only after the customer has agreed"
    "|Get the customer's explicit yes before any action that changes data}."
)
_AT_ONCE = (
    "{When a request is clear, carry it out at once; do not ask for confirmation"
    "|Do what the customer clearly asks for without asking again}."
)
_STATE = (
    "{State ids, codes, amounts, dates and times exactly as the tools give them"
    "|In replies, give the codes, prices, dates and times that matter, exactly}."
)
_YES = (
    "{Yes|Yes, please|Sure|OK|Perfect|Great|Sounds good|That works}{, go ahead|, do it|, please do|. Go for it"
    "|. Please go ahead|, that is fine}{.|!|, thanks.}"
)
_NO = "{No, leave it|Hmm, no, not now|No thanks, I changed my mind|Rather not, leave it as it is}{.|, sorry.| for now.}"
_DECLINED = 0.08
"""Share of proposals that the customer turns down."""
_CONFIRMS = 0.65
"""Share of dialogues whose rules ask for a confirmation before a write."""

Scene = Callable[["Talk"], None]


class Talk(Script):
    """See the module.

    Args:
        rng: draws everything.
        engine: the world.
        options: of the dialogue.
        box: the agent's tools.
        role: the first line of the system prompt, with choices in braces.
        rules: further lines of it.
    """

    def __init__(
        self, rng: random.Random, engine: Engine, options: Options, box: Toolbox, role: str, rules: Sequence[str] = ()
    ):
        self.confirms = rng.random() < _CONFIRMS
        lines = [expand(rng, rule) for rule in (*rules, _CONFIRM if self.confirms else _AT_ONCE, _STATE)]
        rng.shuffle(lines)
        system = f"{expand(rng, role)} Today is {TODAY.isoformat()}.\n" + "\n".join(f"- {line}" for line in lines)
        super().__init__(engine, list(box.tools.values()), rng, system, options.thinking)
        self.length = rng.randint(2, 4)
        self.notes: dict[str, Any] = {}
        self.opened = False

    def play(self, openings: Sequence[Scene], follow_ups: Sequence[Scene]) -> Talk:
        """An opening, then follow-ups while there is room; the last of `follow_ups` must always apply."""
        opening = self.rng.choice(openings)
        opening(self)
        self.opened = True
        for scene in self.rng.sample(follow_ups, len(follow_ups)):
            if self.room() and scene is not opening:
                scene(self)
        while len(self.dialogue.turns) < 2:
            follow_ups[-1](self)
        return self

    def room(self, turns: int = 1) -> bool:
        """Whether so many more turns fit in."""
        return len(self.dialogue.turns) + turns <= self.length

    def room_to_act(self) -> bool:
        """Whether a write, with the confirmation that the rules may ask for, fits in."""
        return self.room(2 if self.confirms else 1)

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.rng.random() < share

    def agreed(self, proposal: str, tell: str, think: str, *records: Record, **values: Any) -> bool:
        """Propose a write where the rules ask for it, and have the customer answer; whether it is to be done.

        The arguments are those of `reply`; the proposal ends in a question.
        """
        if not self.confirms:
            return True
        self.reply(proposal, tell, think or "The rules want a yes first.", *records, asks=True, **values)
        if not self.chance(_DECLINED):
            self.user(_YES)
            return True
        self.user(_NO)
        self.refuse(
            "{Alright|No problem|Understood}, {I have not changed anything|nothing was changed|I made no change}.",
            "",
            "They declined, so no write.",
        )
        return False

    def refuse(self, text: str, tell: str, think: str, *records: Record, **values: Any) -> None:
        """A reply that says that it cannot be done; the arguments are those of `reply`."""
        self.reply(text, tell, think, *records, refuses=True, **values)

    def identified(self, wish: str, person: Record, verify: str, secret: str, **values: Any) -> bool:
        """The customer opens with a wish and who they are; the agent verifies before anything else.

        Sometimes the secret comes only when asked for, or is wrong at first, or stays wrong; False in the last case.

        Args:
            wish: what the customer wants, with choices in braces.
            person: their record, with `name` and the secret.
            verify: the tool that verifies a name and the secret, which is the name of its second argument.
            secret: that name ("pin").
            values: of the names in the wish.
        """
        name, right = person["name"], person[secret]
        word = secret.replace("_", " ").replace("pin", "PIN")
        values |= {"name": name, "word": word, "secret": right}
        who = "{I am|This is|My name is|It's} <name>"
        wrong = right[:-2] + f"{(int(right[-2:]) + self.rng.randint(1, 98)) % 100:02d}"
        kind = self.rng.choices(("at once", "when asked", "wrong first", "wrong"), (64, 14, 10, 12))[0]
        if kind == "when asked":
            self.user(f"{who}. {wish}" if self.chance(0.5) else f"{wish} {who}.", **values)
            ask = "{I can help with that|Gladly}, <name>. {What is your|Could you give me your} <word>?"
            self.reply(ask, "", "No <word> yet; I must verify first.", asks=True, **values)
            self.user("{It is|It's|Sure:|My <word> is|The <word> is} <secret>{.|}", **values)
        else:
            values["secret"] = right if kind == "at once" else wrong
            end = "{, <word> <secret>| and my <word> is <secret>| (<word> <secret>)}."
            self.user(f"{who}{end} {wish}" if self.chance(0.6) else f"{wish} {who}{end}", **values)
        if kind.startswith("wrong"):
            self.call(verify, "Verify them first.", fails=True, name=name, **dict[str, Any]({secret: wrong}))
            self.refuse(
                "{I am sorry, I could not verify you|Sorry, that did not match our records|I cannot verify you with "
                "that}, "
                "so I {cannot|am not able to} {do this|go on|help with the account}.{ Please check your <word>.|}",
                "",
                "Verification failed: no account action.",
                **values,
            )
            if kind == "wrong" or not self.room_to_act():
                return False
            values["secret"] = right
            self.user("{Oh, sorry, it is|My mistake:|Oops, I meant|I mistyped, it's} <secret>.", **values)
        thought = "{Verify them first|Identity first|Check who it is before the account}."
        self.notes["who"] = self.call(verify, thought, name=name, **dict[str, Any]({secret: right}))
        return True


def people(rng: random.Random, count: int) -> list[str]:
    """So many different full names."""
    pairs = rng.sample(range(len(FIRST_NAMES) * len(LAST_NAMES)), count)
    return [f"{FIRST_NAMES[pair % len(FIRST_NAMES)]} {LAST_NAMES[pair // len(FIRST_NAMES)]}" for pair in pairs]


def day(rng: random.Random, first: int = 1, last: int = 40) -> str:
    """A date so many days after today, as tools write it."""
    return (TODAY + datetime.timedelta(days=rng.randint(first, last))).isoformat()


def clock(rng: random.Random, first: int = 8, last: int = 19) -> str:
    """A clock time on the quarter hour."""
    return f"{rng.randint(first, last):02d}:{rng.choice(('00', '15', '30', '45'))}"


def ids(rng: random.Random, letter: str, count: int, digits: int = 3) -> list[str]:
    """So many different ids: the letter and digits."""
    numbers = rng.sample(range(10 ** (digits - 1), 10**digits), count)
    return [f"{letter}{number}" for number in numbers]


def spoken(date: str, rng: random.Random) -> str:
    """A date as a person says it: May 14, 14 May, May 14th or 2025-05-14."""
    value = datetime.date.fromisoformat(date)
    month, number = MONTHS[value.month - 1], value.day
    end = "th" if 11 <= number <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return rng.choice((f"{month} {number}", f"{number} {month}", f"{month} {number}{end}", date))


def only(record: Record, *names: str) -> Record:
    """A record with these fields alone."""
    return {name: record[name] for name in names}
