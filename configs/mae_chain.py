"""Three masked autoencoders on icons, small to large.

Run:    mim train compt configs/mae_chain.py
Needs:  pip install "compt[mae,demo]"; 12 minutes on 2 CPU cores, no GPU, no download but the
        packages
Gives:  reconstruction loss on unseen icons: mae-t 0.432, mae-s 0.411, mae-b 0.400
Alone:  trained too, for the same samples: 0.432, 0.559, 0.632; see docs/results.md
"""

paradigm = dict(
    type="mae",
    data=dict(type="icons"),
    pipeline=[
        dict(type="RandomResizedCrop", scale=32, crop_ratio_range=(0.5, 1.0)),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackInputs"),
    ],
)


def mae(width, layers):
    patch = dict(patch_size=4)
    return dict(
        type="mmpretrain.MAE",
        backbone=dict(
            type="mmpretrain.MAEViT",
            arch=dict(
                embed_dims=width,
                num_layers=layers,
                num_heads=width // 32,
                feedforward_channels=4 * width,
            ),
            img_size=32,
            mask_ratio=0.75,
            **patch,
        ),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches=64,
            embed_dim=width,
            decoder_embed_dim=64,
            decoder_depth=2,
            decoder_num_heads=2,
            **patch,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=True,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
            **patch,
        ),
        init_cfg=[
            dict(type="Xavier", layer="Linear", distribution="uniform"),
            dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
        ],
    )


chain = [
    dict(name="mae-t", model=mae(64, 4), epochs=16),
    dict(name="mae-s", model=mae(96, 6), epochs=8),
    dict(name="mae-b", model=mae(160, 8), epochs=5),
]
grower = dict(type="lossless")
transfer = dict(type="none")  # feature_mse was tried, and made it no better: docs/results.md
individual = dict(budget="chain")
compare = True
evaluations = 2

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=4e-3, weight_decay=0.05, betas=(0.9, 0.95)))
