"""Llamas of one width, deeper from member to member, whose study compares ways to add blocks."""

_base_ = ["lm.py"]


def llama(layers):
    return dict(
        model_type="llama",
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )


family = [dict(name=f"llama-64x{layers}", model=llama(layers), lr=8e-3) for layers in (4, 6, 10)]
unit = dict(name="tokens a parameter of the largest", iterations=488_832 / (128 * 16))
study = [
    dict(grower=dict(type="lossless")),
    *[
        dict(grower=dict(type="stack", order=order, blocks=blocks))
        for order in ("stack", "interleave", "middle", "expand")
        for blocks in ("copy", "zero")
    ],
    dict(grower=dict(type="lesa")),
    dict(grower=dict(type="lesa", steps=0)),
]
presets = dict(cpu=dict(study_lengths=(512,)))
