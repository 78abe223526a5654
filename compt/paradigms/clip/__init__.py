"""Provide contrastive language-image pre-training with open_clip."""

from compt.paradigms.clip.paradigm import Clip

__all__ = ["Clip"]
