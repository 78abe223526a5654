"""Features of other numbers of tokens are pooled or interpolated, or refused before training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compt import ConfigError, describe
from compt.registry import TRANSFERERS
from compt.testing.toy import ToyNet
from compt.transfers._features import matched

ARCH = describe(ToyNet(8, 1))


def bound(student, teacher, kind="feature_mse", **options):
    """A transfer of features with these tokens, of 4 and 6 units."""
    transfer = TRANSFERERS.build(dict(type=kind, features=["hidden"], **options))
    archs = (
        replace(ARCH, outputs={"hidden": width}, tokens={"hidden": tokens})
        for width, tokens in ((6, teacher), (4, student))
    )
    transfer.bind(*archs)
    return transfer


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        ((5,), (3,), {}, r"'hidden' has other tokens in the teacher than in the student \(3 and 5"),
        ((2, 2), (4,), dict(tokens="interpolate"), r"no line or grid of them leads to \(4 and 2 x"),
        ((4,), (), dict(tokens="interpolate"), r"leads to \(none and 4\)"),
        ((4,), (4,), dict(tokens="mean"), "tokens: 'mean' is none of 'same', 'pool'"),
    ],
)
def test_what_does_not_match_is_refused_before_training(student, teacher, options, message):
    with pytest.raises(ConfigError, match=message):
        bound(student, teacher, **options)


@pytest.mark.parametrize("kind", ["feature_mse", "cosine"])
@pytest.mark.parametrize(
    ("student", "teacher", "how"),
    [
        ((5,), (3,), "pool"),
        ((5,), (3,), "interpolate"),
        ((2, 2), (4, 3), "interpolate"),
        ((4,), (), "pool"),
    ],
)
def test_matched_features_give_a_loss_that_learns(kind, student, teacher, how):
    transfer = bound(student, teacher, kind, tokens=how)
    feature = torch.randn(2, *student, 4, requires_grad=True)
    target = torch.randn(2, *teacher, 6)
    terms = transfer({"hidden": feature}, {"hidden": target}, progress=0.0)
    sum(terms.values()).backward()
    assert feature.grad.any()
    assert transfer.heads["hidden"].weight.grad.any()


def test_relation_averages_tokens_by_itself():
    transfer = bound((5,), (3,), "relation")
    features = torch.randn(3, 5, 4), torch.randn(3, 3, 6)
    terms = transfer(*({"hidden": feature} for feature in features), progress=0.0)
    assert torch.isfinite(sum(terms.values()))


def test_tokens_by_hand():
    line = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1)
    two, three = torch.zeros(1, 2, 1), torch.zeros(1, 7, 1)
    assert matched(line, two, "interpolate")[0].flatten().tolist() == [0.5, 2.5]
    more = matched(line, three, "interpolate")[0].flatten()
    assert more[3].item() == pytest.approx(1.5)
    assert more.diff().min() >= 0
    grid = torch.arange(4.0).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    smaller = matched(grid, torch.zeros(1, 1, 2, 3), "interpolate")[0]
    assert smaller.tolist() == [[[[1.0] * 3, [2.0] * 3]]]
    pooled = matched(line, three + 7, "pool")
    assert [value.tolist() for value in pooled] == [[[1.5]], [[7.0]]]


def test_pooled_tokens_are_averaged_in_float32():
    features = torch.full((1, 4096, 1), 60000.0, dtype=torch.float16)
    student, _ = matched(features, features, "pool")
    assert student.dtype == torch.float32
    assert student.item() == pytest.approx(60000, rel=1e-3)
