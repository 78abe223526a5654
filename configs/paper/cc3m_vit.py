"""The paper's CLIP chain on CC3M: ViT-T, ViT-S, ViT-B, ViT-L.

Run:      mim train compt configs/paper/cc3m_vit.py --launcher pytorch --gpus 8
Needs:    pip install "compt[clip]"; 8 GPUs for the global batch of 1024; tables data/cc3m_train.csv
          and data/imagenet_val.csv with the columns image, caption_0 ... caption_7 (empty where an
          image has fewer) and label (empty in CC3M, the class name in ImageNet)
Plan:     compt plan configs/paper/cc3m_vit.py needs neither data nor GPU
Gives:    not run here. Reported by the paper: ViT-L with 38.3 % zero-shot top-1 on ImageNet at 28 %
          of the compute of ViT-L alone, which has 38.2 %; a family of 4 trained 5.68x cheaper than
          its members alone
From:     Chain-of-Models Pre-Training, arXiv 2604.12391, and its scripts: towers, epochs, batch,
          AdamW, warm-up, 8 captions an image, squared feature distance (alpha = 500 over a mean of
          512 is a weight of 0.98)
Differs:  q, k and v get a corner each, not the fused tensor; the text tower deepens too; bf16; one
          prompt, not 80
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
    dict(name="vit-s", model=clip(384, 12, 384), epochs=24),
    dict(name="vit-b", model=clip(768, 12, 512), epochs=16),
    dict(name="vit-l", model=clip(1024, 24, 768), epochs=16),
]
published = dict(
    source="arXiv 2604.12391",
    relative_compute={
        "vit-t->vit-s->vit-b->vit-l": 0.28,
        "vit-s->vit-b->vit-l": 0.36,
        "vit-b->vit-l": 0.48,
    },
)
