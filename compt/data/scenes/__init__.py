"""Scenes of coloured icons with captions, drawn from an installed package without a download."""

from compt.data.scenes.source import Scenes, SceneSource

__all__ = ["SceneSource", "Scenes"]
