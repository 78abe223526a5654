"""Masked autoencoders on ImageNet as a chain: ViT-B, ViT-L, ViT-H.

Run:      mim train compt configs/paper/imagenet_mae_vit.py --launcher pytorch --gpus 8
Needs:    pip install "compt[mae]"; 8 GPUs for the global batch of 4096; ImageNet-1k in
          data/imagenet, as mmpretrain reads it
Plan:     compt plan configs/paper/imagenet_mae_vit.py needs neither data nor GPU
Gives:    not run here
From:     MAE, arXiv 2111.06377: sizes, masking, decoder, crops, lr 1.5e-4 x batch / 256, AdamW, 800
          epochs with 40 of warm-up (1600 for its best figures); grower and transfer of
          Chain-of-Models Pre-Training, arXiv 2604.12391
Ours:     150 and 100 epochs after the first member's 800: the paper names masked modelling and
          shows none
Differs:  members of a chain share patches and head width: ViT-H has patches of 16, not 14, and 20
          heads of 64, not 16 of 80; tokens get weight decay
"""


def mae(width, layers):
    arch = dict(
        embed_dims=width, num_layers=layers, num_heads=width // 64, feedforward_channels=4 * width
    )
    return dict(
        type="mmpretrain.MAE",
        backbone=dict(type="mmpretrain.MAEViT", arch=arch, patch_size=16, mask_ratio=0.75),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            patch_size=16,
            embed_dim=width,
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=True,
            patch_size=16,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
        ),
    )


def imagenet(split, *transforms):
    pipeline = [dict(type="LoadImageFromFile"), *transforms, dict(type="PackInputs")]
    return dict(
        type="mmpretrain.ImageNet", data_root="data/imagenet", split=split, pipeline=pipeline
    )


_bicubic = dict(backend="pillow", interpolation="bicubic")
_crop = dict(type="RandomResizedCrop", scale=224, crop_ratio_range=(0.2, 1.0), **_bicubic)
_resize = dict(type="ResizeEdge", scale=256, edge="short", **_bicubic)
_center = dict(type="CenterCrop", crop_size=224)

paradigm = dict(type="mae", probe=dict(samples=50_000, dataset=imagenet("train", _resize, _center)))

_epoch = 1_281_167
chain = [
    dict(name="mae-b", model=mae(768, 12), samples=800 * _epoch),
    dict(name="mae-l", model=mae(1024, 24), samples=150 * _epoch),
    dict(name="mae-h", model=mae(1280, 32), samples=100 * _epoch),
]
grower = dict(type="leading_block")
transfer = dict(type="feature_mse", weight=0.98)

precision = "bf16"
default_scope = "mmpretrain"
train_dataloader = dict(
    batch_size=512,
    num_workers=16,
    dataset=imagenet("train", _crop, dict(type="RandomFlip", prob=0.5)),
)
val_dataloader = dict(dataset=imagenet("val", _resize, _center))
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1.5e-4 * 4096 / 256, weight_decay=0.05, betas=(0.9, 0.95))
)
