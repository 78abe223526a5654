"""Train text models of transformers, whatever they predict."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from compt.data.mixture import MixtureSource
from compt.data.text import NEEDS, open_blocks
from compt.errors import ConfigError
from compt.interfaces import Batch, Member
from compt.paradigms.text.alignment import Aligned
from compt.paradigms.text.checkpoints import TextModels
from compt.paradigms.text.members import SHARED, key_of
from compt.paradigms.text.teaching import TOKENIZER, Alignments, attention_mask
from compt.registry import DATA, Range

MAX_CONTEXT = 10**7


class TextParadigm(TextModels, ABC):
    """A base of paradigms that train text models of transformers.

    It builds members from a config dict with ``model_type``, a folder with a config.json, or a name
    that is in the cache or can be downloaded, always with fresh weights. What a dict leaves out of
    vocabulary, special tokens and positions is filled in from the tokenizer and the context. It
    opens data and tokenizers, writes folders that transformers loads, reads them, and takes over
    what a checkpoint that is followed says. Members share the vocabulary, so that teacher and
    student read the same tokens, but for those with a tokenizer of their own.

    A subclass says which models these are, and writes what it trains: ``outputs``, ``features``,
    ``prepare``, ``forward``, ``loss`` and ``metrics``; see ``docs/plugins.md``. One that takes
    ``tokenizers`` lets a teacher of another tokenizer read rows of :meth:`aligned`.

    Args:
        data: what to train on and measure on; see :mod:`compt.data.text`. ``num_samples`` in it is
            the size of the training set, in blocks of ``context`` tokens, for plans made where the
            data is not.
        context: tokens that the model reads at once; by default the members'
            max_position_embeddings.
        tokenizer: folder or name that ``AutoTokenizer`` loads; None reads the bytes of UTF-8,
            without any download.
        attention: 'sdpa' (torch's fused kernels) or 'eager', for models that have no other.
        eval_blocks: blocks of each held-out split to measure, evenly spaced; None measures all.
        tokenizers: by name of a member, a tokenizer of its own in place of ``tokenizer``, likewise.
            Data is read with that of the first member that is built, in a stage the student's.
    """

    needs = NEEDS
    example = "data=dict(type='stdlib')"

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        context: Annotated[int, Range(minimum=1, maximum=MAX_CONTEXT)] | None = None,
        tokenizer: str | None = None,
        attention: str = "sdpa",
        eval_blocks: Annotated[int, Range(minimum=1)] | None = None,
        tokenizers: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(
            context=context, tokenizer=tokenizer, tokenizers=tokenizers, attention=attention
        )
        for key, number in (("context", context), ("eval_blocks", eval_blocks)):
            if number is not None and number < 1:
                raise ConfigError(f"{key}={number} is below 1.", where=f"paradigm {self.name}")
        self._use(data)
        self.eval_blocks = eval_blocks
        self._alignments = Alignments(self._tokenizer_of, self._is_here)
        self._tokens_a_byte: dict[str, float | None] = {}

    def reads_like(self, members: Sequence[Member]) -> Sequence[Member]:
        """Return for each member the first one that has its tokenizer.

        Raises:
            ConfigError: ``tokenizers`` names a member that is not there, or the data is tokens.
        """
        firsts = self.tokenizers.reads_like(members, self._tokenizer)
        source = self._data_source
        parts = source.sources if isinstance(source, MixtureSource) else [source]
        has_tokens = any("tokens" in part.provides for part in parts if part is not None)
        if has_tokens and len({member.name for member in firsts}) > 1:
            raise ConfigError(
                "The data is tokens already, which one tokenizer has made.",
                where="paradigm.tokenizers",
                do="Give text, which every member's tokenizer can read.",
            )
        return firsts

    def _length(self) -> int:
        length = self.context or self._input["context"]
        if length is None:
            raise ConfigError(
                "The models name no context.",
                where="paradigm.context",
                do="For example context=512.",
            )
        return length

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open a split as ``dict(tokens=int64 [context + 1])`` samples."""
        blocks = open_blocks(self.data_source, split, self.tokenizer, self._length())
        self._tokens_a_byte[split] = (
            blocks.num_tokens / blocks.num_bytes if blocks.num_bytes else None
        )
        if split == "train" or self.eval_blocks is None or self.eval_blocks >= len(blocks):
            return blocks
        chosen = torch.linspace(0, len(blocks) - 1, self.eval_blocks, dtype=torch.float64)
        return Subset(blocks, chosen.round().long().tolist())

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros for tokens [B, context] on the model's device.

        On the meta device they come with a mask for attention. Where members have tokenizers of
        their own, ``tokenizer`` says whose the tokens are.
        """
        device = next(model.parameters()).device
        tokens = torch.zeros(batch_size, self._length(), device=device, dtype=torch.long)
        batch: dict[str, Any] = {"input_ids": tokens, "labels": tokens}
        if (mask := attention_mask(model, tokens)) is not None:
            batch["attention_mask"] = mask
        if self.tokenizers:
            batch[TOKENIZER] = key_of(model)
        return batch

    def reads_otherwise(self, model: nn.Module, batch: Batch) -> bool:
        """Say whether a batch is of another tokenizer than a model's."""
        if not self.tokenizers.sources:  # compilers follow it through no method of an object
            return False
        return key_of(model) != self._key_of_batch(batch)

    def aligned(self, model: nn.Module, batch: Batch) -> Aligned:
        """Return a batch's texts in a model's tokens, and where the batch's positions are in them.

        Raises:
            ConfigError: what text the tokens of either are is not known.
        """
        pair = self._key_of_batch(batch), key_of(model)
        return self._alignments(batch["input_ids"], *pair, self._length())

    def _key_of_batch(self, batch: Batch) -> str:
        key: str = batch.get(TOKENIZER, self._reading or SHARED)
        return key

    def num_samples(self, split: str) -> int:
        """Return ``data['num_samples']`` for the training split, else the length of the data.

        The number in the config is that of the paradigm's tokenizer; with another one the data is
        counted.
        """
        if (self._reading or SHARED) == SHARED:
            return super().num_samples(split)
        return len(self.build_dataset(split))  # type: ignore[arg-type]

    def tokens_per_byte(self, split: str) -> float | None:
        """Return the mean number of tokens of a byte of a split, None where it has none to count.

        The bytes of data that is tokenised already are not known.
        """
        if split not in self._tokens_a_byte:
            self.build_dataset(split)
        return self._tokens_a_byte[split]
