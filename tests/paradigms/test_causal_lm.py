"""Hold causal_lm to the shipped contract and to the outputs and gradients of transformers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

transformers = pytest.importorskip("transformers")

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.causal_lm import models as _lm_models
from compt.paradigms.causal_lm.paradigm import CausalLm
from compt.testing import ParadigmContract
from compt.training.stage import StageModel
from tests.paradigms.lm_models import (
    CONTEXT,
    FAMILIES,
    GPT2,
    LLAMA,
    SIZES,
    corpus,
    made,
    prepared,
    tokens,
)


class _Contract(ParadigmContract):
    @pytest.fixture(autouse=True)
    def _on_text(self, tmp_path_factory):
        data = corpus(tmp_path_factory.mktemp("text"))
        self.paradigm = dict(type="causal_lm", data=data, context=CONTEXT)


class TestLlama(_Contract):
    model = LLAMA


class TestGpt2(_Contract):
    model = GPT2


def test_loss_by_hand():
    """Expect ln 4 of even guesses over four tokens.

    Odds of 3 to 1 for the right one of two are ln 4/3, for the wrong one ln 4.
    """
    even = {"logits": torch.zeros(2, 3, 4)}
    labels = torch.tensor([[0, 1, 2], [3, 0, 1]])
    assert CausalLm().loss(even, {"labels": labels})["next_token"].item() == pytest.approx(
        math.log(4)
    )
    odds = {"logits": torch.tensor([[[math.log(3), 0.0], [math.log(3), 0.0]]])}
    terms = CausalLm().loss(odds, {"labels": torch.tensor([[0, 1]])})
    assert set(terms) == {"next_token"}
    assert terms["next_token"].item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_labels_are_the_next_tokens():
    batch = prepared(CausalLm(), torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]]))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [1, 2, 3]]
    assert batch["labels"].tolist() == [[6, 7, 8], [2, 3, 4]]


def test_half_precision_logits_have_their_loss_in_float32():
    logits = torch.tensor([[[300.0, 302.0, 0.0]]], dtype=torch.bfloat16)
    loss = CausalLm().loss({"logits": logits}, {"labels": torch.tensor([[1]])})["next_token"]
    assert (loss.dtype, loss.item()) == (
        torch.float32,
        pytest.approx(math.log1p(math.exp(-2)), rel=1e-5),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_loss_and_gradients_equal_transformers(family):
    """From raw tokens through the stage, against the family's own forward with labels."""
    stage = StageModel(
        dict(type="causal_lm", context=CONTEXT + 1), dict(name="a", model=FAMILIES[family])
    ).train()
    stage.student.load_state_dict(made(FAMILIES[family], context=CONTEXT + 1)[1].state_dict())
    twin = copy.deepcopy(stage.student)
    for model in (stage.student, twin):  # no dropout, which GPT-2 has by default
        model.eval()
    token = tokens()
    losses = stage(mode="loss", tokens=token)
    losses["loss"].backward()
    theirs = twin(input_ids=token, labels=token, output_hidden_states=True)
    theirs.loss.backward()
    outputs = stage.paradigm.forward(stage.student, prepared(stage.paradigm, token))
    assert torch.allclose(outputs["logits"], theirs.logits[:, :-1], atol=1e-5)
    assert torch.allclose(outputs["hidden"], theirs.hidden_states[-1][:, :-1], atol=1e-5)
    assert losses["loss"].item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    ours = dict(stage.student.named_parameters())
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None and torch.allclose(
            ours[name].grad, parameter.grad, atol=1e-6
        ), name


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_sees_a_later_one(family):
    paradigm, model = made(FAMILIES[family])
    texts = tokens(), tokens()
    texts[1][:, 7] = (texts[1][:, 7] + 1) % 257
    with torch.no_grad():
        first, second = (
            paradigm.forward(model, prepared(paradigm, text))["logits"] for text in texts
        )
    assert torch.allclose(first[:, :7], second[:, :7], atol=1e-6)
    assert not torch.allclose(first[:, 7], second[:, 7], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_compute_is_counted_on_meta(family):
    """Count products of weights and of attention, and twice as much backwards.

    Masks save nothing: attention is counted as a square.
    """
    paradigm = CausalLm(context=CONTEXT)
    with torch.device("meta"):
        model = paradigm.build_model(Member("a", FAMILIES[family])).train()
    batch = paradigm.example_batch(model, 2)
    with FlopCounterMode(display=False) as forward:
        loss = paradigm.loss(paradigm.forward(model, batch), batch)["next_token"]
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    config = model.config
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in looked_up)
    if config.tie_word_embeddings:
        weights += config.vocab_size * config.hidden_size
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or 8)
    attention = config.num_hidden_layers * 2 * CONTEXT * width
    expected = (
        2 * 2 * CONTEXT * (weights + attention)
    )  # some releases multiply rotary angles, too: 0.02 % here
    assert forward.get_total_flops() == pytest.approx(expected, rel=1e-3)
    assert backward.get_total_flops() == pytest.approx(2 * expected, rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
@pytest.mark.parametrize("chunk", [1, 7, 36, 1000])
def test_a_loss_in_chunks_has_the_same_gradients(family, chunk):
    losses, gradients = [], []
    for options in ({}, dict(loss_chunk=chunk)):
        paradigm, model = made(FAMILIES[family], **options)
        batch = prepared(paradigm, tokens())
        outputs = paradigm.forward(model.double(), batch)
        loss = paradigm.loss(outputs, batch)["next_token"]
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: param.grad for name, param in model.named_parameters()})
    assert "logits" not in outputs and outputs["token_losses"].shape == (3, CONTEXT)
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-8, atol=1e-12)


def test_a_loss_in_chunks_keeps_no_logits():
    def largest_kept(**options):
        paradigm, model = made(**options)
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        batch = prepared(paradigm, tokens(rows=8))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            paradigm.loss(paradigm.forward(model, batch), batch)
        return max(sizes)

    assert largest_kept() == 8 * CONTEXT * 257 > largest_kept(loss_chunk=8)


def test_metrics_of_a_loss_in_chunks_are_the_same():
    values = []
    for options in ({}, dict(loss_chunk=5)):
        paradigm, model = made(**options)
        paradigm._tokens_a_byte["val"] = 1.0
        batches = [prepared(paradigm, tokens(seed=seed)) for seed in (0, 1)]
        with torch.no_grad():
            metrics = paradigm.metrics(model, "val", batches)
        values.append({name: (metric.value, metric.chance) for name, metric in metrics.items()})
    assert set(values[0]) == {"loss", "perplexity", "bits_per_byte"}
    for name, (value, chance) in values[0].items():
        assert values[1][name] == (pytest.approx(value, rel=1e-6), chance)


def test_a_transfer_of_logits_needs_them():
    paradigm = CausalLm(context=CONTEXT, loss_chunk=8)
    assert paradigm.outputs == {"token_losses", "hidden"}
    assert CausalLm(context=CONTEXT).outputs == {"logits", "hidden"}


def test_a_mask_is_given_only_on_meta():
    """With one, torch's causal kernel would not be used."""
    paradigm, model = made()
    assert set(paradigm.example_batch(model, 2)) == {"input_ids", "labels"}
    assert set(prepared(paradigm, tokens())) == {"input_ids", "labels"}


def test_a_teacher_of_features_leaves_the_output_layer_out(monkeypatch):
    paradigm, model = made()
    batch = prepared(paradigm, tokens())
    with torch.no_grad():
        whole = paradigm.forward(model, batch)
        for needs in ({"logits"}, {"hidden", "logits"}):
            taught = paradigm.teacher_forward(model, batch, frozenset(needs))
            assert all(torch.equal(taught[name], whole[name]) for name in needs)
        monkeypatch.setattr(
            model.lm_head, "forward", lambda *_: pytest.fail("the output layer was run")
        )
        taught = paradigm.teacher_forward(model, batch, frozenset({"hidden"}))
    assert set(taught) == {"hidden"} and torch.equal(taught["hidden"], whole["hidden"])


@pytest.mark.parametrize("transfer", ["feature_mse", "logit_kl"])
def test_a_teacher_is_learned_from(transfer, tmp_path):
    """Run the stage, in which a twin has nothing to teach and another teacher has."""
    from compt.weights import save_weights

    other, student = made(dict(LLAMA, hidden_size=16), seed=1)[1], made(seed=2)[1]
    save_weights(other, tmp_path / "other.safetensors")
    save_weights(student, tmp_path / "twin.safetensors")
    terms = {}
    for name, config in (("other", dict(LLAMA, hidden_size=16)), ("twin", LLAMA)):
        stage = StageModel(
            dict(type="causal_lm", context=CONTEXT),
            dict(name="b", model=LLAMA),
            init=str(tmp_path / "twin.safetensors"),
            teacher=dict(name="a", model=config, weights=str(tmp_path / f"{name}.safetensors")),
            transfer=dict(type=transfer),
        )
        losses = stage(mode="loss", tokens=tokens())
        losses["loss"].backward()
        assert all(p.grad is not None for p in stage.parameters())
        terms[name] = losses[f"transfer/{transfer}"].item()
    assert abs(terms["twin"]) < 1e-6 and terms["other"] > 0.01


def test_bfloat16_and_recomputed_blocks_give_the_same_loss():
    """The core's performance options, on a model of transformers."""
    losses = []
    for performance in ({}, dict(grad_checkpointing=True), dict(precision="bf16")):
        stage = StageModel(
            dict(type="causal_lm", context=CONTEXT),
            dict(name="a", model=LLAMA),
            performance=performance,
            seed=3,
        ).train()
        loss = stage(mode="loss", tokens=tokens())["loss"]
        loss.backward()
        losses.append((loss.item(), stage.student.lm_head.weight.grad.norm().item()))
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[0], rel=0.02) and losses[2] != losses[0]


def sized(kind: str, **more):
    return dict(SIZES, model_type=kind, num_key_value_heads=2, **more)


CHANGED = {
    "gemma2": (sized("gemma2", head_dim=8), dict(final_logit_softcapping=0.5)),
    "cohere": (sized("cohere"), dict(logit_scale=0.25)),
    "granite": (sized("granite"), dict(logits_scaling=5.0)),
    "falcon_h1": (
        sized("falcon_h1", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
        dict(lm_head_multiplier=0.25),
    ),
    "recurrent_gemma": (sized("recurrent_gemma", head_dim=8), dict(logits_soft_cap=0.5)),
}
"""Families that do something with logits behind the output layer, and the option that says it."""


@pytest.mark.parametrize("family", CHANGED)
def test_logits_and_losses_are_those_of_the_models_own_head(family):
    """All at once, in chunks, and of a teacher, in float64; the option matters."""
    model, option = CHANGED[family]
    paradigm, student = made({**model, **option}, attention="eager")
    student = student.double()
    with torch.no_grad():
        student.get_output_embeddings().weight.mul_(20)  # logits that a cap is felt by
    ids = tokens()
    batch = prepared(paradigm, ids)
    with torch.no_grad():
        theirs = student(input_ids=ids, labels=ids)
        ours = paradigm.forward(student, batch)
        taught = paradigm.teacher_forward(student, batch, frozenset({"logits"}))
        chunked = CausalLm(context=CONTEXT, attention="eager", loss_chunk=7)
        in_chunks = chunked.loss(chunked.forward(student, batch), batch)["next_token"]
        plain = student.get_output_embeddings()(ours["hidden"])
    for logits in (ours["logits"], taught["logits"]):
        torch.testing.assert_close(logits, theirs.logits[:, :-1], rtol=1e-12, atol=1e-12)
    assert (ours["logits"] - plain).abs().max() > 0.1
    loss = paradigm.loss(ours, batch)["next_token"]
    assert loss.item() == pytest.approx(theirs.loss.item(), abs=1e-6)
    assert in_chunks.item() == pytest.approx(theirs.loss.item(), abs=1e-6)


REFUSED = {
    "hyperclovax": (sized("hyperclovax", logits_scaling=2.0), r"by logits_scaling=2\.0 perhaps"),
    "mixtral": (
        sized("mixtral", num_local_experts=2, output_router_logits=True),
        "by output_router_logits=True perhaps",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_families_whose_logits_are_made_otherwise_are_refused_with_the_option(kind):
    """Multiplied where others divide, or with a loss that balances experts."""
    model, options = REFUSED[kind]
    with pytest.raises(ConfigError, match=rf"'a' .{kind}. does something after .*{options}"):
        CausalLm(context=CONTEXT, attention="eager").build_model(Member("a", model))


EXPERTS = {
    "mixtral": sized("mixtral", num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": sized("gpt_oss", num_local_experts=4, num_experts_per_tok=2, head_dim=16),
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_experts_are_planned_without_values(kind):
    """Of the MLPs, a plan counts those that a token chooses."""

    def flops(num_chosen):
        model = dict(EXPERTS[kind], num_experts_per_tok=num_chosen)
        with torch.device("meta"):
            paradigm, planned = made(model, attention="eager")
            batch = paradigm.example_batch(planned, 2)
        counter = FlopCounterMode(display=False)
        with counter:
            logits = paradigm.forward(planned, batch)["logits"]
        assert logits.shape[:2] == batch["input_ids"].shape
        return counter.get_total_flops()

    config = made(EXPERTS[kind], attention="eager")[1].config
    products = 2 * 3 * config.hidden_size * config.intermediate_size
    one_more = config.num_hidden_layers * 2 * CONTEXT * products
    assert flops(3) - flops(2) == flops(2) - flops(1) == one_more


def test_the_check_of_the_output_layer_leaves_the_model_as_it_was():
    paradigm, model = made(dict(sized("olmo2")))
    initial = paradigm.forward(model, prepared(paradigm, tokens()))
    _lm_models.check_head("a", model)
    assert "forward" not in vars(model.get_decoder())
    after = paradigm.forward(model, prepared(paradigm, tokens()))
    assert torch.equal(initial["logits"], after["logits"])
    assert torch.allclose(
        initial["logits"], model(prepared(paradigm, tokens())["input_ids"]).logits
    )
