"""Layouts of two architectures without attention, timm's MLP-Mixer and transformers' Mamba."""
