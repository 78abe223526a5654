"""Say which folders are of decoder-only models."""

from __future__ import annotations

from pathlib import Path

from compt.paradigms.causal_lm.models import DECODERS
from compt.paradigms.text import folder


def recognises(path: Path) -> bool:
    """Say whether a path is a folder with the config and weights of a decoder-only model.

    An adapter, quantized weights and the like are claimed too, of whatever model they are, so that
    ``load`` says why it cannot be loaded.
    """
    is_refused = path.is_dir() and folder.reason_against(path, DECODERS) is not None
    return is_refused or folder.recognises(path, DECODERS)
