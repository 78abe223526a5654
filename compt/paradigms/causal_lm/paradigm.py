"""Predict the next token with models, tokenizers and checkpoints of transformers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Batch, Metric, Outputs
from compt.paradigms.causal_lm import folder
from compt.paradigms.causal_lm.experts import plan_experts
from compt.paradigms.causal_lm.models import DECODERS, check_head, logits_of
from compt.paradigms.causal_lm.starter import CausalLmStarter
from compt.paradigms.text.losses import cross_entropy, cross_entropy_of
from compt.paradigms.text.paradigm import MAX_CONTEXT, TextParadigm
from compt.paradigms.text.teaching import attention_mask
from compt.registry import DATA, Range


class CausalLm(TextParadigm):
    """Language models of transformers, trained to predict each token from those before it.

    The loss is the mean cross entropy.

    A member's ``model`` is a config dict with ``model_type`` (``'llama'``, ``'qwen3'``, ``'gpt2'``,
    ...), a folder with a config.json, or a name. How members are built, and the arguments, are
    those of :class:`compt.paradigms.text.TextParadigm`, and one more.

    A teacher with a tokenizer of its own (``tokenizers``) is given the student's text in its own
    tokens, in each iteration, and its hidden states are taken to the student's positions; see
    :class:`compt.paradigms.text.alignment.Alignment`. Only ``hidden`` can be taught so.

    Args:
        loss_chunk: the loss is computed for so many tokens at a time, and their logits are
            forgotten until the backward pass: with a large vocabulary they take more memory than
            all else. There are no ``logits`` then for a transferer. None computes all at once.

    An exported folder loads with ``AutoModelForCausalLM.from_pretrained`` and
    ``AutoTokenizer.from_pretrained``, and so in lm-evaluation-harness: ``lm_eval --model hf
    --model_args pretrained=FOLDER --tasks ...``.
    """

    outputs = frozenset({"logits", "hidden"})
    features = ("hidden",)
    family = DECODERS
    name = "causal_lm"
    starter = CausalLmStarter()

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        context: Annotated[int, Range(minimum=1, maximum=MAX_CONTEXT)] | None = None,
        tokenizer: str | None = None,
        attention: str = "sdpa",
        eval_blocks: Annotated[int, Range(minimum=1)] | None = None,
        loss_chunk: Annotated[int, Range(minimum=1)] | None = None,
        tokenizers: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(
            data=data,
            context=context,
            tokenizer=tokenizer,
            attention=attention,
            eval_blocks=eval_blocks,
            tokenizers=tokenizers,
        )
        self.loss_chunk = loss_chunk
        if loss_chunk is not None:
            self.outputs = frozenset({"token_losses", "hidden"})

    def check_model(self, model: nn.Module, name: str) -> None:
        """Raise ConfigError where a family makes its logits in a way that is not known."""
        check_head(name, model)  # type: ignore[arg-type]

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros for tokens [B, context]; experts on the meta device run without values."""
        batch = super().example_batch(model, batch_size)
        if batch["input_ids"].is_meta:
            plan_experts(model)  # type: ignore[arg-type]
        return batch

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Split tokens [B, L + 1] into ``input_ids`` and ``labels``, both [B, L].

        A label is the token after.
        """
        tokens = batch["tokens"]
        return {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return logits [B, L, V], and the hidden states [B, L, D] after the final norm.

        With ``loss_chunk`` there are losses [B, L] in place of logits.
        """
        hidden = self._hidden(model, batch)
        head = partial(logits_of, model)
        if self.loss_chunk is None:
            return {"logits": head(hidden), "hidden": hidden}
        losses = cross_entropy_of(hidden, head, batch["labels"], self.loss_chunk)
        return {"token_losses": losses, "hidden": hidden}

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run the output layer, which costs most where the vocabulary is large, only for logits.

        A teacher with another tokenizer reads the batch's text in its own, and returns hidden
        states at the batch's positions.

        Raises:
            ConfigError: it has another tokenizer, and more is needed than its hidden states.
        """
        if self.reads_otherwise(model, batch):
            return {"hidden": self._hidden_elsewhere(model, batch, needs)}
        if "logits" in needs:
            return self.forward(model, batch)
        return {"hidden": self._hidden(model, batch)}

    def _hidden_elsewhere(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Tensor:
        """Return the hidden states [B, L, D] of a model with another tokenizer than the batch's."""
        if others := sorted(needs - {"hidden"}):
            raise ConfigError(
                f"The teacher has another tokenizer than its student, so that its "
                f"{' and '.join(others)} are of other tokens.",
                where="paradigm.tokenizers",
                do="Compare features, for example transfer=dict(type='feature_mse').",
            )
        texts = self.aligned(model, batch)
        own = {"input_ids": texts.rows, "attention_mask": attention_mask(model, texts.rows)}
        states = self._hidden(model, own).flatten(0, 1)
        chosen = states.index_select(0, texts.index.flatten())
        return chosen.view(*texts.index.shape, -1)

    def _hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        decoder = model.get_decoder()  # type: ignore[operator]
        mask = batch.get("attention_mask")
        hidden: Tensor = decoder(
            input_ids=batch["input_ids"], attention_mask=mask, use_cache=False
        ).last_hidden_state
        return hidden

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross entropy of the next token, in nats, computed in float32."""
        return {"next_token": self._cross_entropy(outputs, batch["labels"])}

    def _cross_entropy(self, outputs: Outputs, labels: Tensor, reduction: str = "mean") -> Tensor:
        if "logits" in outputs:
            return cross_entropy(outputs["logits"], labels, reduction)
        losses = outputs["token_losses"]
        return losses.mean() if reduction == "mean" else losses.sum()

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure loss, perplexity and bits per byte.

        ``loss`` is in nats a token; ``bits_per_byte`` is there where the bytes of the text are
        known, and takes the split's mean number of tokens a byte. Chance is an even guess over the
        vocabulary.
        """
        total, count, size = torch.zeros((), dtype=torch.float64), 0, 1
        for batch in batches:
            outputs, labels = self.forward(model, batch), batch["labels"]
            total += self._cross_entropy(outputs, labels, "sum").double().cpu()
            count += labels.numel()
            if "logits" in outputs:
                size = outputs["logits"].shape[-1]
            else:
                size = model.get_output_embeddings().out_features  # type: ignore[operator]
        loss, chance = total / max(count, 1), math.log(size)
        values = {
            "loss": (loss.item(), chance, "nats"),
            "perplexity": (loss.exp().item(), float(size), ""),
        }
        rate = self.tokens_per_byte(split)
        if rate is not None:
            bits, even_bits = (rate * nats / math.log(2) for nats in (loss.item(), chance))
            values["bits_per_byte"] = (bits, even_bits, "bits/byte")
        return {
            name: Metric(value, even, higher_is_better=False, unit=unit)
            for name, (value, even, unit) in values.items()
        }

    def recognises(self, path: Path) -> bool:
        """Say whether the path is a folder of transformers with a decoder-only model.

        It must hold the config and the weights.
        """
        return folder.recognises(path)
