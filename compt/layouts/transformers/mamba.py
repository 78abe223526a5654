"""Layouts of state space models, which have no attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.layouts.transformers._decoder import RMS_NORM, DecoderLayout

MIXER = "backbone.layers.{block}.mixer"
INNER = "groups heads head_dim"
STATE = "groups state"


class Mamba2Layout(DecoderLayout):
    """The axes of Mamba 2.

    One projection makes gate, values, input and output of the state, and time steps; a short
    convolution runs over three of them; a gated norm spans the heads of each group. ``heads`` are
    those of one group. Exact at any width, with heads at whole multiples.
    """

    patterns = {
        "backbone.embeddings.weight": "vocab -> embed",
        "backbone.layers.{block}.norm.*": RMS_NORM,
        f"{MIXER}.in_proj.*": f"({INNER} | {INNER} | {STATE} | {STATE} | groups heads) <- embed",
        f"{MIXER}.conv1d.*": f"scale: ({INNER} | {STATE} | {STATE}) 1 kernel",
        f"{MIXER}.dt_bias": "(groups heads)",
        f"{MIXER}.A_log": "scale: (groups heads)",
        f"{MIXER}.D": "scale: (groups heads)",
        f"{MIXER}.norm.*": f"rms_norm_gain: ({INNER})",
        f"{MIXER}.out_proj.*": f"embed <- ({INNER})",
        "backbone.norm_f.*": f"{RMS_NORM} @ lm_head.weight",
        "lm_head.*": "vocab <- embed",
    }
    roles = {"groups": "fixed", "state": "fixed", "kernel": "fixed", "head_dim": "fixed"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of groups and of the heads of each, which no shape tells."""
        config = module.config
        return {"groups": config.n_groups, "heads": config.num_heads // config.n_groups}
