"""Policy: a softmax network with one hidden layer over what an agent sees of a symbolic state, and Adam."""

from __future__ import annotations

import numpy as np


class Policy:
    """π(action | features) = softmax(W2·tanh(W1·x)) over the allowed actions, one set of weights for all tasks."""

    def __init__(self, width: int, actions: int, hidden: int, rng: np.random.Generator):
        self.weights = [
            rng.normal(scale=1 / np.sqrt(6), size=(width, hidden)),  # about six features are on at a time
            rng.normal(scale=0.1 / np.sqrt(hidden), size=(hidden, actions)),
        ]
        self.forget()

    def forget(self) -> None:
        """Begin Adam anew."""
        self.moments = [[np.zeros_like(w), np.zeros_like(w)] for w in self.weights]
        self.updates = 0

    def probabilities(self, features: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n, action] and the hidden layer."""
        hidden = np.tanh(features @ self.weights[0])
        logits = np.where(allowed, hidden @ self.weights[1], -np.inf)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True), hidden

    def gradient(
        self, features: np.ndarray, allowed: np.ndarray, taken: np.ndarray, factors: np.ndarray
    ) -> list[np.ndarray]:
        """Σ factor·∇ log π(taken | features)."""
        pi, hidden = self.probabilities(features, allowed)
        back = -pi * factors[:, None]
        back[np.arange(len(taken)), taken] += factors
        inner = (back @ self.weights[1].T) * (1 - hidden**2)
        return [features.T @ inner, hidden.T @ back]

    def ascend(self, gradient: list[np.ndarray], rate: float) -> None:
        """One step of Adam (0.9, 0.999) up the gradient; nothing at all where the gradient is 0."""
        if not any(g.any() for g in gradient):
            return
        self.updates += 1
        for weight, g, (first, second) in zip(self.weights, gradient, self.moments, strict=True):
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            mean, square = first / (1 - 0.9**self.updates), second / (1 - 0.999**self.updates)
            weight += rate * mean / (np.sqrt(square) + 1e-8)
