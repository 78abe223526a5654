"""A paradigm for compt, masked language modelling with BERT, on transformers' models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForMaskedLM

from compt import Batch, ConfigError, Member, Metric, Outputs, Paradigm
from compt.data import splits
from compt.data.text import open_tokens
from compt.paradigms.causal_lm import open_tokenizer

IGNORED = -100
"""Label of a token that is not to be predicted, as torch and transformers have it."""


class Mlm(Paradigm):
    """BERT, trained to fill in tokens of its text that are masked.

    A member's ``model`` is a dict of transformers' BertConfig, or a folder that holds one; weights
    are always fresh. Vocabulary, special tokens and positions are filled in where a dict leaves
    them out. An exported folder loads with ``BertForMaskedLM.from_pretrained``.

    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1, without next-sentence prediction, as
    RoBERTa (arXiv 1907.11692): each time a text is read other tokens are masked, and texts are
    packed into blocks. In evaluations the masks are always the same.

    Args:
        data: text or tokens, as for ``causal_lm``.
        context: tokens that the model reads at once.
        tokenizer: folder or name that ``AutoTokenizer`` loads; None reads the bytes of UTF-8. Where
            it has no mask token it gets one, '[MASK]'.
        rate: share of the tokens to predict. Of these 80 % are masked, 10 % are other tokens, and
            10 % stay as they are.
    """

    api_version = "1.2"
    outputs = frozenset({"logits", "hidden"})
    features = ("hidden",)

    def __init__(
        self,
        *,
        data: Mapping[str, Any] | None = None,
        context: int = 128,
        tokenizer: str | None = None,
        rate: float = 0.15,
    ) -> None:
        if not (context >= 1 and 0 < rate <= 1):
            raise ConfigError(
                f"context={context}, rate={rate}: a context is at least 1, a rate above 0 and at "
                "most 1.",
                where="paradigm mlm",
            )
        self.data, self.context, self.rate = data, context, rate
        self.splits = () if data is None else splits(data)
        self.tokenizer = open_tokenizer(tokenizer)
        if self.tokenizer.inner.mask_token_id is None:
            self.tokenizer.inner.add_special_tokens({"mask_token": "[MASK]"})
        self.mask = self.tokenizer.inner.mask_token_id

    def build_model(self, member: Member) -> nn.Module:
        """Build a BertForMaskedLM.

        Raises:
            ConfigError: a key that BertConfig does not have, sizes that do not fit, or fewer tokens
                or positions than there are.
        """
        config = self._config(member.model)
        size, positions = config.vocab_size, config.max_position_embeddings
        if size <= self.mask or positions < self.context:
            raise ConfigError(
                f"The model of member '{member.name}' has {size} tokens and {positions} positions; "
                f"there are {self.mask + 1} and {self.context}.",
                do="Leave vocab_size and max_position_embeddings out, or raise them.",
            )
        try:
            return BertForMaskedLM(config)
        except ValueError as error:
            raise ConfigError(f"The model of member '{member.name}': {error}") from error

    def _config(self, model: Any) -> BertConfig:
        if not isinstance(model, Mapping):
            return BertConfig.from_pretrained(model)
        if unknown := sorted(model.keys() - BertConfig().to_dict().keys()):
            raise ConfigError(f"BertConfig has no {', '.join(unknown)}.", where="model")
        # Without a padding token none is left untrained.
        filled = {"pad_token_id": self.tokenizer.pad, "max_position_embeddings": self.context}
        return BertConfig(**{"vocab_size": self.mask + 1, **filled, **model})

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open a split as ``dict(tokens=int64 [context + 1])`` samples."""
        if self.data is None:
            raise ConfigError("The paradigm has no data.", where="paradigm.data")
        return open_tokens(self.data, split, self.tokenizer, self.context)

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return ``input_ids`` with masks, and ``labels`` of what is masked, both [B, L]."""
        tokens = batch["tokens"][:, : self.context]
        chosen, fate = (
            torch.rand(tokens.shape, generator=generator, device=tokens.device) for _ in "ab"
        )
        others = torch.randint(self.mask, tokens.shape, generator=generator, device=tokens.device)
        masked = chosen < self.rate
        inputs = torch.where(masked & (fate < 0.8), self.mask, tokens)
        inputs = torch.where(masked & (fate >= 0.9), others, inputs)
        return {"input_ids": inputs, "labels": torch.where(masked, tokens, IGNORED)}

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros on the model's device."""
        device = next(model.parameters()).device
        tokens = torch.zeros(batch_size, self.context, device=device, dtype=torch.long)
        return {"input_ids": tokens, "labels": tokens}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return logits [B, L, V], and the hidden states [B, L, D] of the last block."""
        hidden = self.teacher_forward(model, batch, frozenset({"hidden"}))["hidden"]
        return {"logits": model.cls(hidden), "hidden": hidden}  # type: ignore[operator]

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run the head, which costs most where the vocabulary is large, only for logits."""
        if "logits" in needs:
            return self.forward(model, batch)
        return {"hidden": model.bert(batch["input_ids"]).last_hidden_state}  # type: ignore[operator]

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross entropy of the tokens to predict, in nats."""
        count = (batch["labels"] != IGNORED).sum()
        return {"masked_token": _cross_entropy(outputs["logits"], batch["labels"]) / count.clamp(1)}

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure cross entropy and accuracy of the masked tokens.

        Chance is an even guess over the vocabulary, and the share of the most frequent token.
        """
        total, right, size = 0.0, 0, 1
        labels = []
        for batch in batches:
            logits, all_labels = self.forward(model, batch)["logits"], batch["labels"]
            total += _cross_entropy(logits, all_labels).item()
            right += int((logits.argmax(-1) == all_labels).sum())
            labels.append(all_labels[all_labels != IGNORED].cpu())
            size = logits.shape[-1]
        known = torch.cat(labels)
        count = max(known.numel(), 1)
        frequent = known.bincount().max().item() / count if known.numel() else 0.0
        return {
            "loss": Metric(total / count, math.log(size), higher_is_better=False, unit="nats"),
            "accuracy": Metric(right / count, frequent, unit="share"),
        }

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write a folder that transformers loads, with the tokenizer."""
        model.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save(folder)

    def recognises(self, path: Path) -> bool:
        """Tell whether the path is a folder of transformers with a BertForMaskedLM."""
        try:
            content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return "BertForMaskedLM" in (content.get("architectures") or ())

    def load(self, path: Path) -> nn.Module:
        """Load a folder of transformers, in float32.

        Raises:
            ConfigError: it lacks weights, or has others than its config says.
        """
        model, info = BertForMaskedLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        missing = sorted(info["missing_keys"])
        if missing:
            raise ConfigError(f"'{path}' lacks the weights {', '.join(missing[:4])}.")
        return model


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross entropy of logits [B, L, V], in at least float32."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    return F.cross_entropy(wide, labels.flatten(), ignore_index=IGNORED, reduction="sum")
