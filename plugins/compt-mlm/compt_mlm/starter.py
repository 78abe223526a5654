"""What ``compt init --paradigm mlm`` writes."""

from __future__ import annotations

from collections.abc import Sequence

from compt import ConfigDraft, MemberSize, SeenData
from compt.paradigms.text import TextStarter


class MlmStarter(TextStarter):
    """BERTs that read bytes, each twice as wide as the one before: what grows exactly."""

    sizes = {"tiny": "64x3,128x3,256x3", "small": "128x6,256x6,512x6"}

    def draft(self, seen: SeenData, sizes: Sequence[MemberSize], *, preset: str) -> ConfigDraft:
        """Write models of one width of heads for text of the usual context."""
        head = self.head_width(sizes)
        return self.fitted(
            seen,
            preset,
            models=[f"bert({size.width}, {size.layers})" for size in sizes],
            definitions=f"""\
def bert(width, layers):
    return dict(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // {head},  # heads of one width, or attention cannot be inherited
        intermediate_size=4 * width,
        # BERT's 0.02 is for 768: narrow models begin with attention that is all but even.
        initializer_range=width**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )""",
            optimizer='dict(type="AdamW", lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)',
        )
