"""Write a first config of language models."""

from __future__ import annotations

from collections.abc import Sequence

from compt.interfaces import ConfigDraft, MemberSize, SeenData
from compt.paradigms._shared import WIDE
from compt.paradigms.text import TextStarter


class CausalLmStarter(TextStarter):
    """Llamas that read bytes."""

    member_prefix = "lm"
    sizes = {
        "tiny": "64x3,96x4,160x5",
        "small": "192x6,256x10,384x12",
        "base": "256x8,512x8,768x12",
    }

    def draft(self, seen: SeenData, sizes: Sequence[MemberSize], *, preset: str) -> ConfigDraft:
        """Write models of one width of heads, and the learning rate of the shipped examples."""
        head = self.head_width(sizes)
        rate = 1e-3 if sizes[-1].width > WIDE else 2e-3
        optimizer = f'dict(type="AdamW", lr={rate}, weight_decay=0.1, betas=(0.9, 0.95))'
        return self.fitted(
            seen,
            preset,
            models=[f"llama({size.width}, {size.layers})" for size in sizes],
            definitions=f"""\
def llama(width, layers):
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=8 * width // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=width // {head},  # heads of one width, or attention cannot be inherited
        num_key_value_heads=width // {head},
        tie_word_embeddings=True,
    )""",
            optimizer=optimizer,
            transfer='dict(type="none")  '
            "# logit_kl and feature_mse were tried on small ones: brought nothing",
        )
