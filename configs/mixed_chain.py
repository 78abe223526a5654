"""Built-in and third-party parts in one chain: sigmoid loss, MLP-Mixers as image towers, learned
growth, on icons.

Install:  pip install -e ".[demo]"
          pip install ./plugins/compt-ligo ./plugins/compt-siglip ./plugins/compt-mixer
Run:      mim train compt configs/mixed_chain.py
Needs:    7 minutes on 2 CPU cores, no GPU, no download but the packages
Gives:    zero-shot top-1 on unseen concepts (chance 1.1 %): mixer-t 25.7 %, mixer-s 31.0 %, mixer-b
          32.4 %; one seed
"""

custom_imports = dict(
    imports=["compt_mixer.models"]
)  # small Mixers under names that open_clip finds
paradigm = dict(type="siglip", data=dict(type="icons"))  # from compt-siglip


def clip(tower, width, layers):
    return dict(
        embed_dim=128,
        vision_cfg=dict(
            timm_model_name=tower, timm_pool="", timm_proj="linear", image_size=32
        ),  # compt-mixer
        text_cfg=dict(context_length=12, width=width, layers=layers, heads=width // 32),
    )


chain = [
    dict(name="mixer-t", model=clip("mixer_64x4_p8_32", 64, 2), epochs=12),
    dict(name="mixer-s", model=clip("mixer_128x6_p8_32", 128, 3), epochs=4),
    dict(
        name="mixer-b",
        model=clip("mixer_256x8_p8_32", 256, 4),
        epochs=2,
        grower=dict(type="lossless"),
    ),  # built in
]
grower = dict(type="ligo", steps=50)  # from compt-ligo
transfer = dict(type="cosine", weight=0.5, schedule="linear")  # built in
individual = dict(budget="chain")

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.1, betas=(0.9, 0.98)))
