"""Provide next-token prediction with transformers."""

from compt.paradigms.causal_lm.paradigm import CausalLm
from compt.paradigms.text.tokenizer import ByteTokenizer, LmTokenizer, open_tokenizer

__all__ = ["ByteTokenizer", "CausalLm", "LmTokenizer", "open_tokenizer"]
