"""Provide masked autoencoders and other self-supervised learning of images with mmpretrain."""

from compt.paradigms.mae.paradigm import Mae

__all__ = ["Mae"]
