"""Language models on web text as a chain: Llamas of 1.06 B, 2.9 B and 6.7 B parameters.

Run:      mim train compt configs/paper/web_llama_7b.py --launcher pytorch --gpus 128
Needs:    pip install "compt[lm]"; 128 GPUs of 80 GB for the global batch of 512 x 2048 tokens,
          which share weights, gradients and Adam moments; Parquet files with a column `text` in
          data/web/train and data/web/val, a tokenizer of at most 32,000 tokens in data/tokenizer
Plan:     compt plan configs/paper/web_llama_7b.py --devices 128 --device H100-SXM needs neither
          data, nor tokenizer, nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, which proposes language models and shows
          none; the largest has the sizes of Llama 2 7B, arXiv 2307.09288
Ours:     all else. 135 B tokens for the first member, 20 a parameter of the largest, and so for
          each alone; then 41 B and 27 B. Heads of 128 throughout; growth keeps the function, and
          there is no teacher
"""

_base_ = ["_base_/llama.py"]

paradigm = dict(data=dict(num_samples=170_000_000))


def llama(width, layers, hidden):
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 128,
        vocab_size=32_000,
        max_position_embeddings=2048,
    )


chain = [
    dict(name="llama-1b", model=llama(2048, 18, 5632), samples=66_000_000),
    dict(name="llama-3b", model=llama(3072, 24, 8192), samples=20_000_000),
    dict(name="llama-7b", model=llama(4096, 32, 11_008), samples=13_000_000),
]
parallel = dict(type="fsdp", gather="bf16")
grad_checkpointing = True
train_dataloader = dict(batch_size=4, num_workers=2)
