"""Models, their gradients, and the optimizer states that would come of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compt import grow
from compt.growth.optimizer_state import grow_state
from compt.testing.contracts import randomised

EVEN = pytest.mark.filterwarnings("ignore:(clone|lossless) with noise=0")


CLONE, LOSSLESS = dict(type="clone", noise=0.0), dict(type="lossless", noise=0.0)


def vit(width, depth, heads, **options):
    models = pytest.importorskip("timm").models.vision_transformer
    torch.manual_seed(width)
    size = dict(
        img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=heads, num_classes=5
    )
    return models.VisionTransformer(**size, **options).double()


def llama(width, layers, heads, **options):
    from tests.layouts.language_models import llama

    return llama(width, layers, heads, heads // 2, 2 * width, head_dim=8, **options)


def clip(width, features):
    models = pytest.importorskip("open_clip").model
    torch.manual_seed(width)
    vision = models.CLIPVisionCfg(layers=1, width=width, head_width=8, image_size=16, patch_size=8)
    text = models.CLIPTextCfg(
        context_length=8, vocab_size=20, width=width, heads=width // 8, layers=1
    )
    return models.CLIP(features, vision, text).double()


def clip_loss(model):
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    image, text, scale = model(images, 1 + torch.arange(8) + torch.arange(3)[:, None])
    return F.cross_entropy(scale * image @ text.T, torch.arange(3))


def vit_loss(model):
    x, label = (
        torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
    )
    return F.cross_entropy(model(x.double()), label)


def toy_loss(model):
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.cross_entropy(model.eval()(x), torch.arange(6))


def llama_loss(model):
    tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    return model(input_ids=tokens, labels=tokens).loss


def gradients(model, loss):
    model.zero_grad()
    loss(model).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert sum(gradient.norm() > 1e-9 for gradient in grads.values()) > 0.7 * len(grads), (
        "nothing to compare"
    )
    return grads


def memory(gradient):
    """The state of an Adam whose last seven gradients were this one."""
    state = {f"exp_avg:{name}": value for name, value in gradient.items()}
    state |= {f"exp_avg_sq:{name}": value**2 for name, value in gradient.items()}
    return state | {f"step:{name}": torch.tensor(7.0) for name in gradient}


def grown_and_true(source, target, grower, loss):
    """The state that is grown from the source's gradient, and the gradient of the grown model."""
    state = grow_state(source, target, grower, memory(gradients(randomised(source), loss)))
    grow(source, target, grower)
    return state, gradients(target, loss)


def near(actual, expected, tolerance=1e-9):
    # The biases of keys get no gradient: between two of nearly 0 the distance is what counts.
    return (actual - expected).norm() <= tolerance * expected.norm() + 1e-15


def tensors_copied(model):
    """Copies of all that a model holds."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, earlier):
    now = model.state_dict()
    return earlier.keys() == now.keys() and all(
        torch.equal(earlier[name], now[name]) for name in earlier
    )
