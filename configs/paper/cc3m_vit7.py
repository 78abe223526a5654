"""Seven CLIP models from ViT-T to ViT-L on CC3M: the more members a family has, the less each one
costs.

Run:      mim train compt configs/paper/cc3m_vit7.py --launcher pytorch --gpus 8
Needs:    as cc3m_vit.py: 8 GPUs for the global batch of 1024, and the same two tables
Plan:     compt plan configs/paper/cc3m_vit7.py needs neither data nor GPU
Gives:    not run here. Reported by the paper: a family of 7 trained 7.09x cheaper than its members
          alone (4: 5.68x, 3: 4.13x)
From:     Chain-of-Models Pre-Training, arXiv 2604.12391; the seven pairs of towers are in the model
          configs of its code (T, C, S, M, B, BL, L)
Ours:     that these seven are the paper's family, and the epochs between T and L, which it does not
          list: they fall linearly, from 24 to 14. Seven members between T and L are 1.4x to 1.8x
          apart, closer than the paper's own rule of 2x to 4x, so the plan warns. BL has the others'
          feature width of 512 (768 in the code)
Differs:  as cc3m_vit.py
"""

_base_ = ["_base_/clip.py"]


def clip(width, layers, text_width):
    return dict(
        embed_dim=512,
        vision_cfg=dict(image_size=224, patch_size=16, width=width, layers=layers, head_width=64),
        text_cfg=dict(context_length=77, width=text_width, layers=12, heads=text_width // 64),
    )


chain = [
    dict(
        name="vit-t", model=clip(192, 12, 256), epochs=128, param_scheduler=_base_._first_schedule
    ),
    dict(name="vit-c", model=clip(256, 12, 320), epochs=24),
    dict(name="vit-s", model=clip(384, 12, 384), epochs=22),
    dict(name="vit-m", model=clip(512, 12, 448), epochs=20),
    dict(name="vit-b", model=clip(768, 12, 512), epochs=18),
    dict(name="vit-bl", model=clip(1024, 12, 768), epochs=16),
    dict(name="vit-l", model=clip(1024, 24, 768), epochs=14),
]
