"""A head tied to the embedding, of which the final norm takes what one tensor cannot hold."""

from __future__ import annotations

import itertools

import pytest
import torch

from compt import LAYOUTS, GrowthError, Layout, LayoutError, describe, grow
from compt.growth.axes import find_layout
from compt.layouts.transformers import Gpt2Layout
from compt.testing.contracts import randomised
from tests.layouts.language_models import gpt2, is_tied, llama, neox, transformers


@pytest.mark.parametrize("ties", [(True, True, True), (True, True, False), (False, False, False)])
@pytest.mark.parametrize("make", [gpt2, neox, lambda w, n, **o: llama(w, n, w // 16, w // 16, **o)])
def test_lossless_is_exact_over_two_hops(make, ties):
    """Tied weights may grow into untied ones."""
    sizes = (48, 2), (80, 3), (112, 7)
    models = [make(*size, tie_word_embeddings=tied) for size, tied in zip(sizes, ties)]
    randomised(models[0])
    for source, target in itertools.pairwise(models):
        growth = grow(source, target)
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-9
        assert not growth.dropped
    assert [is_tied(model) for model in models] == list(ties)


def test_the_tied_fold_by_hand():
    """The norm has to give 2 / 5 of what it gave.

    Width 2 -> 5 is two copies and a pad at scale sqrt(5 / 4).
    """
    source, target = gpt2(2, 1, head_dim=1), gpt2(5, 1, head_dim=1)
    with torch.no_grad():
        source.transformer.wte.weight.copy_(torch.tensor([1.0, 3.0]).expand(61, 2))
        source.transformer.ln_f.weight.copy_(torch.tensor([10.0, 20.0]))
        source.transformer.ln_f.bias.copy_(torch.tensor([7.0, 9.0]))
    grow(source, target)
    scale, exactly = 1.25**0.5, dict(rtol=1e-12, atol=1e-12)
    table, norm = target.lm_head.weight[0], target.transformer.ln_f
    torch.testing.assert_close(table / scale, torch.tensor([1, 3, 1, 3, 2]).double(), **exactly)
    torch.testing.assert_close(norm.weight, torch.tensor([4, 8, 4, 8, 6]).double(), **exactly)
    torch.testing.assert_close(
        norm.bias * scale, torch.tensor([3.5, 4.5, 3.5, 4.5, 0]).double(), **exactly
    )


def unmarked(*names):
    """A layout of GPT-2 in which these norms do not say what reads them."""
    patterns = {k: v.partition("@")[0] if k in names else v for k, v in Gpt2Layout.patterns.items()}
    return type("Unmarked", (Gpt2Layout,), {"patterns": patterns})


class Unmarked(transformers.GPT2LMHeadModel):
    pass


@pytest.mark.parametrize(
    "names", [("transformer.ln_f.weight", "transformer.ln_f.bias"), ("transformer.ln_f.bias",)]
)
def test_a_tied_head_without_a_norm_to_make_up_for_it_is_told(monkeypatch, names):
    monkeypatch.setitem(LAYOUTS.module_dict, f"{__name__}.Unmarked", unmarked(*names))
    source, target = randomised(gpt2(48, 2, cls=Unmarked)), gpt2(80, 2, cls=Unmarked)
    growth = grow(source, target)
    assert not growth.function_preserving
    assert growth.reason.startswith(
        "'lm_head.weight' uses 'embed' otherwise than 'transformer.wte.weight'"
    )
    assert growth.error > 1e-3
    deeper = grow(source, gpt2(48, 5, cls=Unmarked))
    assert deeper.function_preserving, deeper.reason  # the width stays


def test_a_reader_of_what_is_no_norm_is_refused(monkeypatch):
    layout = unmarked()
    layout.patterns["transformer.wpe.weight"] = "position -> embed @ lm_head.weight"
    monkeypatch.setitem(LAYOUTS.module_dict, f"{__name__}.Unmarked", layout)
    with pytest.raises(LayoutError, match=r"'transformer\.wpe\.weight' has a reader"):
        describe(gpt2(cls=Unmarked))


def test_equal_sizes():
    """Untying copies the one tensor twice, and tying, which would lose one of two, is refused."""
    source, target = randomised(gpt2()), gpt2(tie_word_embeddings=False)
    growth = grow(source, target)
    assert growth.function_preserving
    assert set(growth.params.values()) == {"copied"}
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)
    with pytest.raises(GrowthError, match=r"'lm_head\.weight' is tied .*but not in the source"):
        grow(target, source)


class Wrapper(torch.nn.Module):
    def __init__(self, lm):
        super().__init__()
        self.lm = lm


class WrapperLayout(Layout):
    parts = ("lm",)

    def probe(self, module, generator):
        return find_layout(module.lm).probe(module.lm, generator)


def test_a_tied_model_inside_another(monkeypatch):
    monkeypatch.setitem(LAYOUTS.module_dict, f"{__name__}.Wrapper", WrapperLayout)
    source, target = Wrapper(randomised(gpt2())), Wrapper(gpt2(80))
    growth = grow(source, target)
    assert growth.function_preserving, growth.reason
    assert describe(target).params["lm.transformer.ln_f.bias"].read_by == "lm.lm_head.weight"


def test_the_first_reader_there_is():
    """GPT-NeoX's head has had two names."""
    model = neox(tie_word_embeddings=True)
    norms = ["gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"]
    assert {describe(model).params[n].read_by for n in norms} == {"lm_head.weight"}
    model.embed_out = model.lm_head
    del model.lm_head
    assert {describe(model).params[n].read_by for n in norms} == {"embed_out.weight"}
