"""Run the experts of a model without values, as a plan does."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

NAME = "compt_planned"
"""The name of :func:`evenly` among transformers' implementations of experts."""


def plan_experts(model: PreTrainedModel) -> None:
    """Let a model on the meta device give each of its experts as many tokens, if it has any.

    Which token chooses which expert depends on values, which it has not.
    """
    if not any(hasattr(module, "num_experts") for module in model.modules()):
        return
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, evenly)
    model.set_experts_implementation(NAME)


def evenly(experts: Any, hidden_Sd: Tensor, index_Sk: Tensor, weights_Sk: Tensor) -> Tensor:
    """Return the shape of what experts make of S tokens of which each chooses k, [S, d].

    The products are those of kernels that group tokens by expert: k for each token, whatever the
    number of experts E. Values mean nothing.
    """
    num_tokens, num_chosen = index_Sk.shape
    rows = hidden_Sd.repeat_interleave(num_chosen, dim=0)
    rows = F.pad(rows, (0, 0, 0, -len(rows) % experts.num_experts))
    apart = rows.unflatten(0, (experts.num_experts, -1))
    made = experts._apply_gate(_linear(experts, apart, "gate_up_proj"))
    rows = _linear(experts, made, "down_proj").flatten(0, 1)[: num_tokens * num_chosen]
    each = rows.unflatten(0, (num_tokens, num_chosen)) * weights_Sk[..., None]
    made_Sd: Tensor = each.sum(1).to(hidden_Sd.dtype)
    return made_Sd


def _linear(experts: Any, rows_Erd: Tensor, name: str) -> Tensor:
    """Return the products of each expert's rows with its own weight, and its bias if it has one."""
    weight = getattr(experts, name)
    products = torch.bmm(rows_Erd, weight if experts.is_transposed else weight.transpose(1, 2))
    bias = getattr(experts, f"{name}_bias", None)
    return products if bias is None else products + bias[:, None]
