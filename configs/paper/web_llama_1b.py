"""Language models on web text as a chain: Llamas of 134 M, 399 M and 1.26 B parameters.

Run:      mim train compt configs/paper/web_llama_1b.py --launcher pytorch --gpus 32
Needs:    pip install "compt[lm]"; 32 GPUs for the global batch of 256 x 2048 tokens; Parquet files
          with a column `text` in data/web/train and data/web/val, a tokenizer of at most 32,000
          tokens in data/tokenizer
Plan:     compt plan configs/paper/web_llama_1b.py needs neither data, nor tokenizer, nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, which proposes language models and shows
          none
Ours:     all of it. 24.6 B tokens for the first member, 20 a parameter of the largest, and so for
          each alone; then 8.2 B and 6.1 B. Heads of 64 throughout; growth keeps the function, and
          there is no teacher
"""

_base_ = ["_base_/llama.py"]

paradigm = dict(data=dict(num_samples=48_000_000))


def llama(width, layers, hidden):
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        vocab_size=32_000,
        max_position_embeddings=2048,
    )


def learning_rate(value):
    return dict(optimizer=dict(lr=value))


chain = [
    dict(
        name="llama-134m",
        model=llama(768, 12, 2048),
        samples=12_000_000,
        optim_wrapper=learning_rate(6e-4),
    ),
    dict(
        name="llama-399m",
        model=llama(1280, 16, 3456),
        samples=4_000_000,
        optim_wrapper=learning_rate(4e-4),
    ),
    dict(
        name="llama-1b",
        model=llama(2048, 22, 5632),
        samples=3_000_000,
        optim_wrapper=learning_rate(3e-4),
    ),
]
train_dataloader = dict(batch_size=8, num_workers=2)
