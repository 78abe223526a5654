"""A paradigm for compt, masked language modelling with BERT, on transformers' models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from compt import DATA, Batch, ConfigError, Metric, Outputs
from compt.paradigms.text import IGNORED, Family, TextParadigm, cross_entropy, token_metrics
from compt_mlm.starter import MlmStarter


class Mlm(TextParadigm):
    """BERT, trained to fill in tokens of its text that are masked.

    A member's ``model`` is a config dict of transformers' BERT, a folder that holds one, or a name;
    weights are always fresh. Vocabulary, special tokens and positions are filled in where a dict
    leaves them out. An exported folder loads with ``AutoModelForMaskedLM.from_pretrained``.

    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1, without next-sentence prediction, as
    RoBERTa (arXiv 1907.11692): each time a text is read other tokens are masked, and texts are
    packed into blocks. In evaluations the masks are always the same.

    Args:
        data, context, attention, eval_blocks: as of :class:`compt.paradigms.text.TextParadigm`.
        tokenizer: likewise; where it has no mask token it gets one, '[MASK]'.
        rate: share of the tokens to predict. Of these 80 % are masked, 10 % are other tokens, and
            10 % stay as they are.
    """

    api_version = "1.2"
    outputs = frozenset({"logits", "hidden"})
    features = ("hidden",)
    family = Family(AutoModelForMaskedLM, ("bert",), "BERT", example="bert", task="fill-mask")
    name = "mlm"
    starter = MlmStarter()
    model_defaults = {"model_type": "bert"}
    special_tokens = {"mask_token": "[MASK]"}

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        context: int | None = 128,
        tokenizer: str | None = None,
        attention: str = "sdpa",
        eval_blocks: int | None = None,
        rate: float = 0.15,
    ) -> None:
        super().__init__(
            data=data,
            context=context,
            tokenizer=tokenizer,
            attention=attention,
            eval_blocks=eval_blocks,
        )
        if not 0 < rate <= 1:
            raise ConfigError(f"rate={rate} is not above 0 and at most 1.", where="paradigm mlm")
        self.rate = rate

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return ``input_ids`` with masks, and ``labels`` of what is masked, both [B, L]."""
        tokens, mask = batch["tokens"][:, :-1], self.tokenizer.inner.mask_token_id
        draws = dict(generator=generator, device=tokens.device)
        chosen, fate = (torch.rand(tokens.shape, **draws) for _ in "ab")
        others = torch.randint(mask, tokens.shape, **draws)
        masked = chosen < self.rate
        inputs = torch.where(masked & (fate < 0.8), mask, tokens)
        inputs = torch.where(masked & (fate >= 0.9), others, inputs)
        return {"input_ids": inputs, "labels": torch.where(masked, tokens, IGNORED)}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return logits [B, L, V], and the hidden states [B, L, D] of the last block."""
        seen = model(batch["input_ids"], output_hidden_states=True)
        return {"logits": seen.logits, "hidden": seen.hidden_states[-1]}

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run the head, which costs most where the vocabulary is large, only for logits."""
        if "logits" in needs:
            return self.forward(model, batch)
        return {"hidden": model.base_model(batch["input_ids"]).last_hidden_state}  # type: ignore[operator]

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross entropy of the tokens to predict, in nats, 0 without any."""
        total = cross_entropy(outputs["logits"], batch["labels"], reduction="sum")
        return {"masked_token": total / (batch["labels"] != IGNORED).sum().clamp(1)}

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure cross entropy and accuracy of the masked tokens."""
        return token_metrics(
            (self.forward(model, batch)["logits"], batch["labels"]) for batch in batches
        )
