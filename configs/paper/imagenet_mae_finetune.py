"""Fine-tuning what imagenet_mae_vit.py pre-trained: a classifier on the ViT-B encoder.

Run:      mim train compt configs/paper/imagenet_mae_finetune.py --launcher pytorch --gpus 8
Needs:    as imagenet_mae_vit.py, whose first stage it starts from
Plan:     compt plan configs/paper/imagenet_mae_finetune.py needs neither data nor GPU
Gives:    not run here
From:     MAE, arXiv 2111.06377: 100 epochs, batch 1024, layer-wise rate decay 0.65, drop path 0.1,
          RandAugment
Differs:  images are not mixed (no mixup, no cutmix), nor labels smoothed: that loss cannot be
          planned without values
Others:   for ViT-L or ViT-H change `_size`, `init` and the decay (0.75); the same chain can have
          several members
"""

_width, _layers = _size = (768, 12)
_decay = 0.65


def classifier(width, layers):
    arch = dict(
        embed_dims=width, num_layers=layers, num_heads=width // 64, feedforward_channels=4 * width
    )
    return dict(
        type="mmpretrain.ImageClassifier",
        backbone=dict(
            type="mmpretrain.VisionTransformer",
            arch=arch,
            img_size=224,
            patch_size=16,
            drop_path_rate=0.1,
            norm_cfg=dict(type="LN", eps=1e-6),
            out_type="cls_token",
        ),
        head=dict(type="mmpretrain.LinearClsHead", num_classes=1000, in_channels=width),
    )


def imagenet(split, *transforms):
    pipeline = [dict(type="LoadImageFromFile"), *transforms, dict(type="PackInputs")]
    return dict(
        type="mmpretrain.ImageNet", data_root="data/imagenet", split=split, pipeline=pipeline
    )


_bicubic = dict(backend="pillow", interpolation="bicubic")
_augment = [
    dict(type="RandomResizedCrop", scale=224, **_bicubic),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
    ),
    dict(type="RandomErasing", erase_prob=0.25, mode="rand"),
]
_centre = [
    dict(type="ResizeEdge", scale=256, edge="short", **_bicubic),
    dict(type="CenterCrop", crop_size=224),
]

paradigm = dict(type="mae", probe=None)
chain = [
    dict(
        name="vit-b",
        model=classifier(*_size),
        init="work_dirs/imagenet_mae_vit/01_mae-b/export",
        samples=100 * 1_281_167,
    )
]

_rates = {f"backbone.layers.{i}.": dict(lr_mult=_decay ** (_layers - i)) for i in range(_layers)}
_rates |= {
    f"backbone.{name}": dict(lr_mult=_decay ** (_layers + 1))
    for name in ("patch_embed", "cls_token", "pos_embed")
}
precision = "bf16"
default_scope = "mmpretrain"
train_dataloader = dict(batch_size=128, num_workers=16, dataset=imagenet("train", *_augment))
val_dataloader = dict(dataset=imagenet("val", *_centre))
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=5e-4 * 1024 / 256, weight_decay=0.05, betas=(0.9, 0.999)),
    paramwise_cfg=dict(custom_keys=_rates, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
