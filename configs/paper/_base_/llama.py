"""What the recipes for language models on web text share: Parquet, a context of 2048, lossless
growth, AdamW.
"""

paradigm = dict(
    type="causal_lm",
    data=dict(type="parquet", train="data/web/train", val="data/web/val"),
    context=2048,
    tokenizer="./data/tokenizer",
)
grower = dict(type="lossless")
transfer = dict(type="none")

precision = "bf16"
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95)),
    clip_grad=dict(max_norm=1.0),
)
