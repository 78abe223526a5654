"""Three ViTs that learn from icons without their names: a few minutes on two cores."""

paradigm = dict(type="dino", data=dict(type="icons", image_size=32), local=(4, 16))


def _vit(width, depth):
    return dict(img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 32)


chain = [
    dict(name="w64", model=_vit(64, 4), iters=400),
    dict(name="w128", model=_vit(128, 4), iters=200),
    dict(name="w192", model=_vit(192, 6), iters=100),
]
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=3.0)
)
evaluations = 2
individual = dict(budget="chain")
