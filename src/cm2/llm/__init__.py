"""The only door to a model endpoint."""

from cm2.llm.client import ChatClient, Completion, Endpoint, ProviderError
from cm2.llm.config import ModelsConfig, Price, RoleModel, load_models
from cm2.llm.models import Models
from cm2.llm.prompt import Prompt, load
from cm2.llm.request import ROLES, Answer, Asker, BudgetReached, Check, ModelError, Request, Role, Usage
from cm2.llm.scrub import scrub
from cm2.llm.spending import Spending

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
    "Models",
    "ModelsConfig",
    "Price",
    "Prompt",
    "ProviderError",
    "Request",
    "Role",
    "RoleModel",
    "Spending",
    "Usage",
    "load",
    "load_models",
    "scrub",
]
