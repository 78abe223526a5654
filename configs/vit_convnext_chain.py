"""A ViT teaches a ConvNeXt, which grows from nothing: CLIP on icons, across architectures.

Run:    mim train compt configs/vit_convnext_chain.py
Needs:  pip install "compt[demo]"; no GPU, no download but the packages
Gives:  -2.4 +- 4.2 points of zero-shot top-1 (95 %, three seeds) over the same ConvNeXt alone,
        no gain; python benchmarks/across.py configs/vit_convnext_chain.py
Alone:  trained too, for the same samples, which is what the teacher has to beat
"""

custom_imports = dict(imports=["compt.paradigms.clip.towers"])  # small towers, for timm
paradigm = dict(type="clip", data=dict(type="icons"))


def clip(text_width, text_layers, **tower):
    return dict(
        embed_dim=128,
        vision_cfg=dict(image_size=32, **tower),
        text_cfg=dict(
            context_length=12, width=text_width, layers=text_layers, heads=text_width // 32
        ),
    )


chain = [
    dict(name="vit", model=clip(64, 2, patch_size=8, width=64, layers=3, head_width=32), epochs=24),
    dict(
        name="convnext",
        model=clip(128, 3, timm_model_name="convnext_mini_32", timm_pool="", timm_proj="linear"),
        epochs=5,
    ),
]
grower = dict(type="scratch")
transfer = dict(type="feature_mse", weight=1.0)
individual = dict(budget="chain")
compare = True

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.1, betas=(0.9, 0.98)))
