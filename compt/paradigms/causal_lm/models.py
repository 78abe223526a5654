"""Say which models of transformers predict the next token, by an output layer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from compt.errors import ConfigError
from compt.paradigms.text.family import Family

DECODERS = Family(
    AutoModelForCausalLM,
    # An encoder would see the token that it is to predict.
    sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)),
    noun="decoder-only language model",
    example="llama",
    task="text-generation",
)


@dataclass
class _HiddenStates(BaseModelOutputWithPastAndCrossAttentions):
    """What a decoder returns that has run nothing, also one with experts."""

    router_logits: tuple[torch.Tensor, ...] | None = None


def check_head(name: str, model: PreTrainedModel) -> None:
    """Raise ConfigError where a family's logits are more than an output layer's.

    Some families scale or cap the logits after it, or add a loss that balances their experts where
    the config asks for it. The paradigm runs decoder and output layer by themselves, so that a
    teacher can be asked for hidden states alone; all else in the family's own forward would be left
    out without a word.
    """
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    hidden = torch.zeros(
        1, 1, head.weight.shape[-1], device=head.weight.device, dtype=head.weight.dtype
    )
    ids = torch.zeros(1, 1, device=head.weight.device, dtype=torch.long)
    decoder.forward = lambda *args, **kwargs: _HiddenStates(last_hidden_state=hidden)
    balances = getattr(model.config, "output_router_logits", False)
    try:
        plain = not balances and _operators(lambda: head(hidden)) == _operators(
            lambda: model(input_ids=ids)
        )
    except (AttributeError, TypeError, RuntimeError):  # it reads more than the hidden states
        plain = False
    finally:
        del decoder.forward
    if not plain:
        raise ConfigError(
            f"The model of member '{name}' ({model.config.model_type}) does more than an output "
            "layer after its final norm (it may scale or cap logits, or balance experts), which "
            "causal_lm would leave out.",
            do="Use another family, or a paradigm of your own: docs/plugins.md.",
        )


class _Recorder(TorchDispatchMode):
    """Note the names of torch's operators that run, without views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _operators(run: Callable[[], Any]) -> list[str]:
    """Return the names of torch's operators that a call runs, without views."""
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.names
