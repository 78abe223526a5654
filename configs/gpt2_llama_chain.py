"""A GPT-2 teaches a Llama, which grows from nothing: the source text of Python's standard library,
across architectures.

Run:    mim train compt configs/gpt2_llama_chain.py
Needs:  pip install "compt[lm]"; no GPU, no download but the packages
Gives:  0.026 +- 0.105 nats better than the same Llama alone (95 %, three seeds), which is none
        that one can tell; python benchmarks/across.py configs/gpt2_llama_chain.py
Alone:  trained too, for the same samples, which is what the teacher has to beat
"""

paradigm = dict(type="causal_lm", data=dict(type="stdlib"), context=128, eval_blocks=512)

_gpt2 = dict(model_type="gpt2", n_embd=64, n_layer=3, n_head=2, n_positions=128)
_llama = dict(
    model_type="llama",
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=3,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)

chain = [
    dict(name="gpt2", model=_gpt2, iters=1200),
    dict(name="llama", model=_llama, iters=400),
]
grower = dict(type="scratch")
# Both read bytes, so that they predict the same tokens. With another tokenizer, as in
# paradigm=dict(..., tokenizers=dict(gpt2="gpt2")), the features remain: dict(type="feature_mse").
transfer = dict(type="logit_kl", weight=1.0, until=0.5, schedule="linear")
individual = dict(budget="chain")
compare = True

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.1, betas=(0.9, 0.95)))
