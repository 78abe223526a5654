"""Say which models of transformers a paradigm trains."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Models that one of transformers' auto classes builds and loads.

    Attributes:
        auto_model: such as ``transformers.AutoModelForCausalLM``.
        types: each ``model_type`` of configs that the paradigm takes.
        noun: what messages call one of the models, such as 'decoder-only language model'.
        example: one of the types, for messages.
        task: what the Hub calls their use, such as 'text-generation'; empty for none.
    """

    auto_model: Any
    types: Collection[str]
    noun: str
    example: str
    task: str = ""

    @property
    def auto_name(self) -> str:
        """Return the name of the auto class."""
        name: str = self.auto_model.__name__
        return name
