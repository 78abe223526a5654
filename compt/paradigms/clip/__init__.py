"""Provide contrastive language-image pre-training with open_clip."""

from compt.paradigms._deferred import deferred

with deferred(
    {
        "open_clip.coca_model": ["CoCa"],
        "open_clip.hf_model": ["HFTextEncoder"],
        "open_clip.timm_model": ["TimmModel"],
        "torch._dynamo.utils": ["is_compile_supported"],
    }
):
    from compt.paradigms.clip.paradigm import Clip

__all__ = ["Clip"]
