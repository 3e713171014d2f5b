"""Weigh: from the weights that a model gave to shares of the turn.

- A model's items alone: each is worth its weight, but never less than `LEAST` of the heaviest, and all sum to 1.
- Beside the code's items (a hybrid labelling), which weigh 1 together: the model weighs its own on that scale. What it
  asks for in all is brought between `LEAST` an item and 1, so that opinions never outweigh what can be checked, and
  then everything is divided by the sum.
- The code's items alone stay as they are.
"""

from __future__ import annotations

from msgspec.structs import replace

from cm2.checklist import Item

LEAST = 0.02


def weighed(code: list[Item], model: list[Item]) -> list[Item]:
    """The items with weights that sum to 1; the model's own weights are above 0 and finite."""
    if not model:
        return code
    heaviest = max(item.weight for item in model)
    parts = [max(item.weight / heaviest, LEAST) for item in model]
    whole = sum(parts)
    asked = min(max(heaviest * whole, LEAST * len(model)), 1.0) if code else 1.0
    total = sum(item.weight for item in code) + asked
    mine = [replace(item, weight=asked * part / whole / total) for item, part in zip(model, parts, strict=True)]
    return [*(replace(item, weight=item.weight / total) for item in code), *mine]
