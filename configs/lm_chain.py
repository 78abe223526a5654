"""Three Llama-style language models on the source text of Python's standard library, small to large.

Run:    mim train compt configs/lm_chain.py
Needs:  pip install "compt[lm]"; no GPU, no download but the packages
Gives:  held-out loss, perplexity and bits per byte (chance: 8.01 bits) of models that read bytes
Alone:  add --individual (`compt train`)
"""

paradigm = dict(type="causal_lm", data=dict(type="stdlib", tests=False), context=256)


def llama(width, layers):
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        head_dim=32,
    )


chain = [
    dict(name="llama-s", model=llama(64, 4), iters=1200),
    dict(name="llama-m", model=llama(128, 4), iters=300),
    dict(name="llama-l", model=llama(256, 4), iters=120),
]
grower = dict(type="lossless")
transfer = dict(type="feature_mse", weight=1.0)
individual = dict(budget="chain")

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.1, betas=(0.9, 0.95)))
