"""What two models differ in is said by the options of their configs, which can be changed."""

from __future__ import annotations

import pytest

from compt import Architecture, GrowthError, describe, grow
from compt.growth.options import advice, changed_options, fault_text, options_text
from compt.testing.contracts import randomised


def arch(**options):
    return Architecture("m.Net", {}, {}, {}, {}, options=options)


@pytest.mark.parametrize(
    ("small", "large", "differ"),
    [
        (1e-6, 1e-5, True),
        (4, 8, False),  # sizes, which grow
        (None, 4096, True),
        (False, True, True),
        (["full", "full"], ["full"] * 4, False),  # one for each block
        (["full", "full"], ["full", "sliding"] * 2, True),
        (["full", "sliding"], ["sliding", "full"], True),
        ([1, 2], [2, 4, 6], False),
        ("silu", "gelu", True),
    ],
)
def test_what_differs_and_is_no_size_is_named(small, large, differ):
    changed = changed_options(arch(x=small, own=1.0), arch(x=large, other=2.0))
    assert changed == ({"x": (small, large)} if differ else {})


def test_options_are_written_with_both_values():
    changed = {"act": ("silu", "gelu"), "eps": (1e-6, 1e-5)}
    assert options_text(changed) == (
        "'act' is 'silu' in the source and 'gelu' in the target, "
        "'eps' is 1e-06 in the source and 1e-05 in the target"
    )
    assert options_text({str(i): (0.0, 1.0) for i in range(8)}).endswith(", 2 more differ")
    assert fault_text({}) == ""
    assert advice({}, "Use another.") == "Use another."
    assert advice(changed, "Use another.") == "Set these options alike. Otherwise: use another."


def test_a_reason_names_options_in_place_of_classes():
    from tests.layouts.language_models import llama

    source, target = randomised(llama()), llama(80, 3, hidden_act="gelu", rms_norm_eps=1e-4)
    growth = grow(source, target)
    assert not growth.function_preserving
    assert (
        "options differ, which are to be set alike: 'hidden_act' is 'silu' in the source and "
        "'gelu' in the target, 'rms_norm_eps' is 1e-06 in the source and 0.0001 in the target"
    ) in growth.reason
    assert "Activation" not in growth.reason and "variance_epsilon" not in growth.reason


def test_a_refusal_names_options_with_the_tensor():
    from tests.layouts.language_models import llama

    with pytest.raises(GrowthError, match=r"could grow into '\S+q_proj\.bias'") as caught:
        grow(llama(), llama(80, attention_bias=True))
    assert "Options differ: 'attention_bias' is False in the source and True in the target." in (
        caught.value.what
    )
    assert caught.value.do.startswith("Set these options alike. Otherwise: use members")


def test_options_say_what_a_model_computes_and_nothing_of_training_or_size():
    from tests.layouts.language_models import gpt2, llama

    options = describe(llama(attention_dropout=0.5)).options
    assert options["rope_parameters.rope_theta"] == 10000.0
    assert (options["hidden_act"], options["attention_bias"]) == ("silu", False)
    unsaid = ("attention_dropout", "head_dim", "initializer_range", "model_type", "use_cache")
    assert not options.keys() & {*unsaid, "architectures", "eos_token_id", "dtype"}
    assert describe(gpt2()).options["activation_function"] == "gelu_new"


def test_a_part_has_its_options_behind_its_name_unless_the_whole_says_them():
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=61, **sizes))
    options = describe(model).options
    assert options["hidden_act"] == "gelu"
    assert not [name for name in options if name.startswith("bert.")]
    assert "hidden_dropout_prob" not in options
