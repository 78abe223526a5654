"""The paper's CLIP chain on Merged-15M (CC3M and CC12M): ViT-S, ViT-M, ViT-B, ViT-L.

Run:      mim train compt configs/paper/merged15m_vit.py --launcher pytorch --gpus 8
Needs:    pip install "compt[clip]"; 8 GPUs for the global batch of 1024; tables
          data/merged15m_train.csv and data/imagenet_val.csv with the columns image, caption_0 ...
          caption_7 (empty where an image has fewer) and label (empty in the first, the class name
          in ImageNet)
Plan:     compt plan configs/paper/merged15m_vit.py needs neither data nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, and its scripts: 64 epochs for a member
          alone, and for the chain's first; then 22, 20 and 6
Differs:  as cc3m_vit.py
"""

_base_ = ["_base_/clip.py"]

paradigm = dict(data=dict(train="data/merged15m_train.csv", num_samples=2_905_954 + 10_968_539))


def clip(width, layers, text_width):
    return dict(
        embed_dim=512,
        vision_cfg=dict(image_size=224, patch_size=16, width=width, layers=layers, head_width=64),
        text_cfg=dict(context_length=77, width=text_width, layers=12, heads=text_width // 64),
    )


chain = [
    dict(name="vit-s", model=clip(384, 12, 384), epochs=64, param_scheduler=_base_._first_schedule),
    dict(name="vit-m", model=clip(512, 12, 448), epochs=22),
    dict(name="vit-b", model=clip(768, 12, 512), epochs=20),
    dict(name="vit-l", model=clip(1024, 24, 768), epochs=6),
]
