"""The LLM labeller: checklists that a model proposes from a reference dialogue and that code holds to the reference.

Each turn is asked about once (with `checklists` k: k times, independently). What comes back goes through

    read ▶ evidence ▶ wording ▶ check compiled ▶ dependencies ▶ lint ▶ asked again once ▶ merged ▶ weighed

Items that fail are asked for again, all of a turn in one question with the reasons; what fails then is dropped and
counted. A check that fails is dropped alone, its item is left to a judge. What is kept obeys every rule of
`cm2.checklist.validate`, and every kept check passes lint.

A question that the provider did not serve, or that the model never answered validly, leaves its turns unlabelled:
`lost` says whose doing that is, and the dialogue is to be set aside whole, because half a checklist would be paid out
as if it were all of it. Nothing else may be concluded from it. To run again costs only what was lost.
"""

from __future__ import annotations

import asyncio

from cm2.dialogue import Dialogue
from cm2.label.answer import complete
from cm2.label.config import Drafting
from cm2.label.labelling import Answered, Labelling, ModelLabelled
from cm2.label.question import Question
from cm2.label.reference import Labelled
from cm2.llm import Asker, BudgetReached, ModelError, ProviderError


class LlmLabeler:
    """Labels dialogues, any number at once; keeps nothing between them.

    Args:
        asker: who answers.
        config: how it is asked.
    """

    name = "llm"

    def __init__(self, asker: Asker, config: Drafting | None = None):
        self.asker, self.config = asker, config or Drafting()

    async def label(self, dialogue: Dialogue) -> ModelLabelled:
        """The dialogue's checklists; existing ones are not looked at.

        Raises:
            ProviderError: the provider will not serve anything (a refused key, an unknown model).
            BudgetReached: the limit of money is reached.
        """
        work = await asyncio.to_thread(self._begin, dialogue)
        questions = await asyncio.to_thread(work.first)
        # The first question fills the replica's prefix cache; the others find the dialogue there.
        answers = await self._ask(questions[:1]) + await self._ask(questions[1:])
        again = await asyncio.to_thread(work.read, questions, answers)
        answers = await self._ask(again)
        await asyncio.to_thread(work.read_again, again, answers)
        return await asyncio.to_thread(work.finish)

    def code(self, dialogue: Dialogue) -> Labelled | None:
        """What code labels first: nothing here."""
        return None

    def _begin(self, dialogue: Dialogue) -> Labelling:
        secret = getattr(self.asker, "secret", "")
        return Labelling(dialogue, self.config, self.name, secret, self.code(dialogue))

    async def _ask(self, questions: list[Question]) -> list[Answered]:
        """Each answer or failure, in order. What ends the run is raised when all are back: what was paid for is then in
        the cache."""
        answers = await asyncio.gather(*map(self._one, questions))
        for answer in answers:
            if isinstance(answer, BudgetReached) or (isinstance(answer, ProviderError) and answer.fatal):
                raise answer
        return answers

    async def _one(self, question: Question) -> Answered:
        def check(value: object) -> str:
            return complete(value, question.turns)

        try:
            return await self.asker.ask(question.request, check if question.whole else None)
        except (ProviderError, ModelError, BudgetReached) as error:
            return error
