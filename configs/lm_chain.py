"""Three Llama-style language models on the source text of Python's standard library, small to
large.

Run:    mim train compt configs/lm_chain.py
Needs:  pip install "compt[lm]"; 6 minutes on 2 CPU cores, no GPU, no download but the packages
Gives:  bits a byte of held-out files (chance 8.01): llama-t 2.22, llama-s 2.14, llama-b 2.08
Alone:  trained too, for the same samples: 2.22, 2.81, 3.44; see docs/results.md
"""

paradigm = dict(type="causal_lm", data=dict(type="stdlib"), context=128, eval_blocks=512)


def llama(width, layers):
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=8 * width // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        tie_word_embeddings=True,
    )


chain = [
    dict(name="llama-t", model=llama(64, 3), iters=1200),
    dict(name="llama-s", model=llama(96, 4), iters=400),
    dict(name="llama-b", model=llama(160, 5), iters=250),
]
grower = dict(type="lossless")
transfer = dict(
    type="none"
)  # logit_kl and feature_mse were tried, and made it no better: docs/results.md
individual = dict(budget="chain")
compare = True

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.1, betas=(0.9, 0.95)))
