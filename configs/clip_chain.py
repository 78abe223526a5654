"""Three CLIP models on icons, small to large.

Run:    mim train compt configs/clip_chain.py
Needs:  pip install "compt[demo]"; 10 minutes on 2 CPU cores, no GPU, no download but the packages
Gives:  zero-shot top-1 on unseen concepts (chance 1.1 %):
        clip-t 28.0 %, clip-s 26.1 %, clip-b 27.3 % (standard error 1.9)
Alone:  add --individual (`compt train`): 28.0 %, 19.9 %, 15.6 % for the same samples; see
        docs/results.md
"""

paradigm = dict(type="clip", data=dict(type="icons"))


def clip(width, vision_layers, text_layers):
    return dict(
        embed_dim=128,
        vision_cfg=dict(
            image_size=32, patch_size=8, width=width, layers=vision_layers, head_width=32
        ),
        text_cfg=dict(context_length=12, width=width, layers=text_layers, heads=width // 32),
    )


chain = [
    dict(name="clip-t", model=clip(64, 3, 2), epochs=24),
    dict(name="clip-s", model=clip(128, 4, 3), epochs=5),
    dict(name="clip-b", model=clip(256, 6, 4), epochs=3),
]
grower = dict(type="lossless")
transfer = dict(type="feature_mse", weight=1.0)
individual = dict(budget="chain")

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.1, betas=(0.9, 0.98)))
