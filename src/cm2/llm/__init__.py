"""The only door to a model endpoint."""

from cm2.llm.client import ChatClient, Completion, Endpoint, ProviderError

__all__ = ["ChatClient", "Completion", "Endpoint", "ProviderError"]
