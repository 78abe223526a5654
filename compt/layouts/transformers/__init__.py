"""Layouts of transformers' decoder-only language models."""

from compt.layouts.transformers.experts import GptOssLayout, MixtralLayout
from compt.layouts.transformers.gemma import Gemma2Layout, Gemma3Layout
from compt.layouts.transformers.gpt import FalconLayout, Gpt2Layout, GptJLayout, GptNeoxLayout
from compt.layouts.transformers.llama import (
    LlamaLayout,
    Olmo2Layout,
    Phi3Layout,
    Starcoder2Layout,
)
from compt.layouts.transformers.mamba import Mamba2Layout

__all__ = [
    "FalconLayout",
    "Gemma2Layout",
    "Gemma3Layout",
    "Gpt2Layout",
    "GptJLayout",
    "GptNeoxLayout",
    "GptOssLayout",
    "LlamaLayout",
    "Mamba2Layout",
    "MixtralLayout",
    "Olmo2Layout",
    "Phi3Layout",
    "Starcoder2Layout",
]
