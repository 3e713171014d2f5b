"""Refusal: a request that is answered with an error, in the shape that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """Why a request is not answered.

    Args:
        status: of the HTTP answer.
        message: what is wrong, and what to do.
        code: one word that a program can act on.
        param: the field of the request that is wrong.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self, status: int, message: str, code: str, *, param: str | None = None, retry_after: float | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The error as an object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Beside the body."""
        return {} if self.retry_after is None else {"retry-after": str(max(1, round(self.retry_after)))}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """A request that its sender must change."""
    return Refusal(400, message, code, param=param)
