"""Icons with names, drawn from an installed package: images that need no download."""

from compt.data.icons.source import Icons

__all__ = ["Icons"]
