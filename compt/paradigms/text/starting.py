"""Fit the context and batches to the text that a first config is written for."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from compt.data.text import NEEDS
from compt.interfaces import ConfigDraft, SeenData, Starter


class TextStarter(Starter, ABC):
    """A base of starters for paradigms that learn from text, read byte by byte at first."""

    needs = NEEDS
    data_noun = "text"
    example_data = "stdlib"
    contexts: ClassVar[Mapping[str, int]] = {"tiny": 128, "small": 256, "base": 512}
    """Tokens that a model reads at once, by preset."""
    largest_batch: ClassVar[Mapping[str, int]] = {"tiny": 32, "small": 64, "base": 128}
    """Blocks of a batch at most, by preset."""

    def fitted(self, seen: SeenData, preset: str, **code: Any) -> ConfigDraft:
        """Return a draft whose context and batches fit the text.

        Args:
            seen: of the training data.
            preset: a key of ``contexts``.
            code: what a draft says of the models.
        """
        context = self.contexts[preset]
        return ConfigDraft(
            options=f"""\
context={context},  # tokens that the model reads at once; a token is a byte of UTF-8 here
# tokenizer="gpt2",  # fewer, longer tokens instead of bytes: a name or folder of transformers
eval_blocks=512,  # of the held-out text, evenly spaced, at every evaluation""",
            num_samples=seen.num_bytes // context,
            sample_noun="blocks",
            smallest_batch=8,
            largest_batch=self.largest_batch[preset],
            min_iterations=200,
            **code,
        )
