"""Icons with names, drawn from an installed package, that need no download."""

from compt.data.icons.source import Icons, IconSource

__all__ = ["IconSource", "Icons"]
