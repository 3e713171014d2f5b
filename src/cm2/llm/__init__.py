"""The only door to a model endpoint."""

from cm2.llm.client import ChatClient, Completion, Endpoint, ProviderError
from cm2.llm.prompt import Prompt, load
from cm2.llm.request import ROLES, Answer, Asker, BudgetReached, Check, ModelError, Request, Role, Usage

__all__ = [
    "ROLES",
    "Answer",
    "Asker",
    "BudgetReached",
    "ChatClient",
    "Check",
    "Completion",
    "Endpoint",
    "ModelError",
    "Prompt",
    "ProviderError",
    "Request",
    "Role",
    "Usage",
    "load",
]
