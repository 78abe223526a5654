"""Say which models of transformers predict the next token, and how they make logits."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
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


def _capped(logits: Tensor, cap: float) -> Tensor:
    """Return logits in the range of a cap to either side."""
    return torch.tanh(logits / cap) * cap


AFTER_HEAD: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "final_logit_softcapping": _capped,
    "logits_soft_cap": _capped,
    "output_logit_soft_cap": _capped,
    "logit_scale": operator.mul,
    "lm_head_multiplier": operator.mul,
    "logits_scaling": operator.truediv,
}
"""What a family does with logits behind its output layer, by the option of its config.

Gemma, RecurrentGemma and xLSTM cap them, Cohere and Falcon-H1 multiply, Granite divides.
"""

_SPEAKS_OF_LOGITS = re.compile(r"logit|lm_head|soft_?cap")


def logits_of(model: nn.Module, hidden: Tensor) -> Tensor:
    """Return the model's logits [..., V] of hidden states [..., D] after its final norm.

    The paradigm runs decoder and output layer by themselves, so that a teacher can be asked for
    hidden states alone, and the loss be computed in chunks.
    """
    logits: Tensor = model.get_output_embeddings()(hidden)  # type: ignore[operator]
    config = getattr(model, "config", None)  # a model of a plug-in may have none
    for option, change in AFTER_HEAD.items():
        constant = getattr(config, option, None)
        if constant is not None:
            logits = change(logits, constant)  # type: ignore[arg-type]
    return logits


def check_head(name: str, model: PreTrainedModel) -> None:
    """Raise ConfigError where a family makes other logits of hidden states than :func:`logits_of`.

    Some families do something else than it knows of, or add a loss that balances their experts
    where the config asks for it. What operators run, with which constants, tells it without values.
    """
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    hidden = torch.zeros(
        1, 1, head.weight.shape[-1], device=head.weight.device, dtype=head.weight.dtype
    )
    ids = torch.zeros(1, 1, device=head.weight.device, dtype=torch.long)
    decoder.forward = lambda *args, **kwargs: _HiddenStates(last_hidden_state=hidden)
    balances = getattr(model.config, "output_router_logits", False)
    try:
        known = not balances and _operators(lambda: logits_of(model, hidden)) == _operators(
            lambda: model(input_ids=ids)
        )
    except (AttributeError, TypeError, RuntimeError):  # it reads more than the hidden states
        known = False
    finally:
        del decoder.forward
    if not known:
        # A config may have one of those options as a property.
        values = {key: getattr(model.config, key, None) for key in AFTER_HEAD}
        values |= model.config.to_dict()
        options = [
            f"{key}={value!r}"
            for key, value in sorted(values.items())
            if _SPEAKS_OF_LOGITS.search(key) and isinstance(value, (bool, int, float)) and value
        ]
        said = f", by {', '.join(options)} perhaps" if options else ""
        raise ConfigError(
            f"The model of member '{name}' ({model.config.model_type}) does something after its "
            f"final norm that causal_lm would leave out{said}: more than an output layer, one of "
            f"{', '.join(AFTER_HEAD)}, or a loss that balances experts.",
            do="Use another family, or a paradigm of your own: docs/plugins.md.",
        )


class _Recorder(TorchDispatchMode):
    """Note torch's operators that run, with their constants, without views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            constants = (value for value in args if isinstance(value, (int, float)))
            self.calls.append((func.name(), *constants))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _operators(run: Callable[[], Any]) -> list[tuple[Any, ...]]:
    """Return the names and constants of torch's operators that a call runs, without views."""
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.calls
