"""The paper's CLIP chain on CC3M with Swin towers: Swin-T, Swin-S, Swin-B, Swin-L.

Run:      mim train compt configs/paper/cc3m_swin.py --launcher pytorch --gpus 8
Needs:    as cc3m_vit.py: 8 GPUs for the global batch of 1024, and the same two tables
Plan:     compt plan configs/paper/cc3m_swin.py needs neither data nor GPU
Gives:    not run here
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, and its scripts: Swin-T 128 epochs, Swin-B
          16, Swin-L 10
Ours:     24 epochs for Swin-S, as for ViT-S: the script of that hop names the models of another one
Differs:  as cc3m_vit.py; blocks deepen in place, where the paper's code leaves the 12 new blocks of
          Swin-S random
"""

_base_ = ["_base_/clip.py"]


def clip(size, text_width):
    return dict(
        embed_dim=512,
        vision_cfg=dict(
            timm_model_name=f"swin_{size}_patch4_window7_224",
            timm_model_pretrained=False,
            timm_pool="",
            timm_proj="linear",
            image_size=224,
        ),
        text_cfg=dict(context_length=77, width=text_width, layers=12, heads=text_width // 64),
    )


chain = [
    dict(
        name="swin-t", model=clip("tiny", 384), epochs=128, param_scheduler=_base_._first_schedule
    ),
    dict(name="swin-s", model=clip("small", 512), epochs=24),
    dict(name="swin-b", model=clip("base", 512), epochs=16),
    dict(name="swin-l", model=clip("large", 768), epochs=10),
]
