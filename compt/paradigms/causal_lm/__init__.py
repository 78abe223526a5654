"""Next-token prediction with transformers."""

from compt.paradigms.causal_lm.paradigm import CausalLm

__all__ = ["CausalLm"]
