"""Three BERTs on the source of Python's standard library, byte by byte: a few minutes on two cores.

Each is twice as wide as the one before, as the width of a post-norm model grows exactly.
"""

paradigm = dict(type="mlm", data=dict(type="stdlib"), context=64)


def _bert(width):
    return dict(
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        # BERT's 0.02 is for 768: narrow models begin with attention that is all but even, and stay
        # for minutes on a plateau where the context is not used.
        initializer_range=width**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


chain = [
    dict(name="w64", model=_bert(64), iters=1500),
    dict(name="w128", model=_bert(128), iters=600),
    dict(name="w256", model=_bert(256), iters=300),
]
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05))
evaluations = 6
individual = dict(budget="chain")
