"""CLIP on LAION-2B as a chain: ViT-S/14, ViT-B/14 and ViT-L/14 with their text towers.

Run:      mim train compt configs/paper/laion2b_vit.py --launcher pytorch --gpus 128
Needs:    pip install "compt[clip]"; 128 GPUs of 80 GB for the global batch of 32,768; shards of
          2.0 B pairs in data/laion2b, and some to measure on in data/laion2b_val
Plan:     compt plan configs/paper/laion2b_vit.py --devices 128 --device H100-SXM needs neither data
          nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, for the method, which it shows on CC3M and
          Merged-15M
Ours:     all else. 12.8 B samples for the first member, as ViT-B/32 and ViT-L/14 of OpenAI have
          seen, and so for each alone; then 4 B and 3 B. One patch size, as members read one input
"""

_base_ = ["_base_/clip.py"]

paradigm = dict(
    data=dict(
        _delete_=True,
        type="webdataset",
        train="data/laion2b/{00000..99999}.tar",
        val="data/laion2b_val/{00..09}.tar",
        num_samples=2_000_000_000,
    )
)


def clip(width, layers, text_width):
    return dict(
        embed_dim=768,
        vision_cfg=dict(image_size=224, patch_size=14, width=width, layers=layers, head_width=64),
        text_cfg=dict(context_length=77, width=text_width, layers=12, heads=text_width // 64),
    )


chain = [
    dict(name="vit-s", model=clip(384, 12, 384), samples=12_800_000_000),
    dict(name="vit-b", model=clip(768, 12, 512), samples=4_000_000_000),
    dict(
        name="vit-l",
        model=clip(1024, 24, 768),
        samples=3_000_000_000,
        grad_checkpointing=True,
    ),
]
grower = dict(type="lossless")
checkpoint = dict(interval=5000)
train_dataloader = dict(batch_size=256, num_workers=8)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.2, betas=(0.9, 0.98)))
