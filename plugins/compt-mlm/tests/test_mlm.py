"""Masked language modelling: contracts, masks, transformers' own loss, growth and a chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compt_mlm import IGNORED, Mlm
from transformers import AutoTokenizer, BertForMaskedLM

import compt
from compt.paradigms.text import ByteTokenizer
from compt.testing import LayoutContract, ParadigmContract

TEXT = "the tide and the moon pull water over sand while gulls turn above grey stones. "


def bert(width: int, layers: int) -> dict[str, Any]:
    """A member's model, without dropout so that outputs can be compared."""
    return dict(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        intermediate_size=2 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two texts of a few thousand bytes."""
    folder = tmp_path_factory.mktemp("text")
    for split, times in (("train", 200), ("val", 20)):
        (folder / f"{split}.txt").write_text("\n".join([TEXT] * times))
    cache = str(folder / "cache")
    return dict(
        type="text", train=str(folder / "train.txt"), val=str(folder / "val.txt"), cache_dir=cache
    )


def build(model: dict[str, Any], seed: int = 0, **options: Any) -> tuple[Mlm, Any]:
    """A paradigm and a model of it, in eval mode, with noise on all parameters."""
    paradigm = compt.PARADIGMS.build(dict(type="mlm", **options))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = paradigm.build_model(compt.Member("a", model)).eval()
        with torch.no_grad():
            for param in net.parameters():
                param.add_(0.05 * torch.randn_like(param))
    return paradigm, net


def prepared(paradigm: Mlm, tokens: torch.Tensor, seed: int = 0) -> compt.Batch:
    """A batch with the masks of a seed."""
    return paradigm.prepare({"tokens": tokens}, generator=torch.Generator().manual_seed(seed))


class TestMlm(ParadigmContract):
    """The interface, a chain and its resumption."""

    model, larger = bert(16, 1), bert(32, 1)

    @pytest.fixture(autouse=True)
    def _on_data(self, data: dict[str, Any]) -> None:
        self.paradigm = dict(type="mlm", data=data, context=16)  # type: ignore[misc]


class TestBert(LayoutContract):
    """Every tensor has a pattern, and the width grows exactly."""

    def pair(self) -> tuple[Any, Any]:
        return build(bert(32, 2), context=24)[1], build(bert(64, 2), context=24)[1]


def test_masks_are_those_of_the_paper() -> None:
    """15 % are to be predicted; of these 80 % are masked, 10 % another token, 10 % as they were."""
    paradigm = Mlm(context=256)
    tokens = torch.randint(200, (400, 257), generator=torch.Generator().manual_seed(1))
    batch = prepared(paradigm, tokens)
    labels, inputs, truth = batch["labels"], batch["input_ids"], tokens[:, :256]
    chosen = labels != IGNORED
    assert torch.equal(labels[chosen], truth[chosen])
    assert torch.equal(inputs[~chosen], truth[~chosen])
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    masked = (inputs == paradigm.tokenizer.inner.mask_token_id) & chosen
    same = (inputs == truth) & chosen
    share = [kind.sum().item() / chosen.sum().item() for kind in (masked, same)]
    assert share == pytest.approx([0.8, 0.1 + 0.1 / 257], abs=0.01)
    assert not torch.equal(prepared(paradigm, tokens, seed=2)["input_ids"], inputs)
    assert torch.equal(prepared(paradigm, tokens)["input_ids"], inputs)


def test_the_loss_is_transformers() -> None:
    """On the same masks, and outputs of the whole model."""
    paradigm, net = build(bert(32, 2), context=24)
    batch = prepared(paradigm, torch.randint(200, (5, 25)))
    outputs = paradigm.forward(net, batch)
    theirs = net(input_ids=batch["input_ids"], labels=batch["labels"], output_hidden_states=True)
    ours = paradigm.loss(outputs, batch)["masked_token"]
    assert torch.allclose(ours, theirs.loss, rtol=1e-6)
    assert torch.allclose(outputs["logits"], theirs.logits, atol=1e-5)
    assert torch.allclose(outputs["hidden"], theirs.hidden_states[-1], atol=1e-5)


def test_a_batch_with_nothing_to_predict_has_no_loss() -> None:
    """Not NaN, which would end the stage."""
    paradigm, net = build(bert(16, 1), context=4, rate=1e-9)
    batch = prepared(paradigm, torch.zeros(1, 5, dtype=torch.long))
    assert paradigm.loss(paradigm.forward(net, batch), batch)["masked_token"].item() == 0


def test_metrics_by_hand() -> None:
    """Of four tokens to predict one is right; the most frequent of them is half of them."""

    class Fixed(Mlm):
        """Says 'b' everywhere."""

        def forward(self, model: Any, batch: compt.Batch) -> compt.Outputs:
            logits = torch.zeros(1, 5, 3)
            logits[..., 1] = torch.tensor(2.0).log()  # probabilities 1/4, 1/2, 1/4
            return {"logits": logits}

    labels = torch.tensor([[0, IGNORED, 1, 2, 2]])
    metrics = Fixed(context=5).metrics(torch.nn.Identity(), "val", [{"labels": labels}])
    assert (metrics["accuracy"].value, metrics["accuracy"].chance) == (0.25, 0.5)
    log2 = torch.tensor(2.0).log().item()
    assert metrics["loss"].value == pytest.approx((3 * 2 * log2 + log2) / 4)
    assert metrics["loss"].chance == pytest.approx(torch.tensor(3.0).log().item())


@pytest.mark.parametrize("grower", ["lossless", "clone"])
def test_twice_the_width_is_exact_and_depth_says_why_it_is_not(grower: str) -> None:
    """In float64; the claim is what is measured, for heads, mlp and the tied table too."""
    for model, exact in ((bert(64, 2), True), (bert(32, 3), False)):
        (paradigm, small), (_, large) = build(bert(32, 2), context=24), build(model, context=24)
        growth = compt.grow(small.double(), large.double(), grower)
        batch = prepared(paradigm, torch.randint(200, (3, 25)))
        outputs = [paradigm.forward(net, batch)["logits"] for net in (small, large)]
        assert growth.function_preserving == exact
        assert torch.allclose(*outputs, atol=1e-9) == exact
        assert exact or "post-norm" in growth.reason


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(bert(32, 1), hidden_sizes=3), "hidden_sizes"),
        (dict(bert(32, 1), num_attention_heads=5), "5"),
        (dict(bert(32, 1), model_type="llama"), "no BERT"),
        (dict(bert(32, 1), vocab_size=100), "100 tokens"),
        (dict(bert(32, 1), max_position_embeddings=8), "takes 8 tokens"),
    ],
)
def test_wrong_models_are_refused(model: dict[str, Any], message: str) -> None:
    """With what is wrong in them."""
    with pytest.raises(compt.ConfigError, match=message):
        Mlm(context=24).build_model(compt.Member("a", model))


@pytest.mark.parametrize("options", [dict(rate=0.0), dict(rate=1.5), dict(context=0)])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Before anything is built."""
    with pytest.raises(compt.ConfigError, match=next(iter(options))):
        Mlm(**options)


def test_a_chain_hands_on_and_exports(data: dict[str, Any], tmp_path: Path) -> None:
    """Two members learn; what is exported is what was trained, with its tokenizer."""
    config = dict(
        paradigm=dict(type="mlm", data=data, context=24),
        chain=[
            dict(name="a", model=bert(32, 1), iters=20),
            dict(name="b", model=bert(64, 1), iters=20),
        ],
        train_dataloader=dict(batch_size=16),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=3e-3)),
        evaluations=1,
    )
    run = compt.train(config, work_dir=tmp_path / "run")
    first, second = (
        json.loads((run / stage / "manifest.json").read_text()) for stage in ("01_a", "02_b")
    )
    assert second["growth"]["function_preserving"]
    losses = [stage["metrics"]["val/loss"]["value"] for stage in (first, second)]
    chance = first["metrics"]["val/loss"]["chance"]
    assert losses[1] < losses[0] < chance
    export = run / "02_b" / "export"
    net = BertForMaskedLM.from_pretrained(export)
    assert net.config.hidden_size == 64
    tokenizer = AutoTokenizer.from_pretrained(export)
    assert tokenizer.mask_token_id == net.config.vocab_size - 1
    paradigm = Mlm(context=24)
    assert paradigm.recognises(export)
    again = paradigm.load(export).state_dict()
    assert all(torch.equal(again[name], value) for name, value in net.state_dict().items())


def test_a_tokenizer_without_a_mask_gets_one_that_is_exported(tmp_path: Path) -> None:
    """Its own files, which lack it, are not copied; and a model's folder brings it back."""
    ByteTokenizer().save(tmp_path / "bytes")
    paradigm, net = build(bert(16, 1), context=8, tokenizer=str(tmp_path / "bytes"))
    paradigm.export(net, tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export").mask_token == "[MASK]"
    again = Mlm()
    assert again.load(tmp_path / "export").config.vocab_size == 258
    assert again.tokenizer.inner.mask_token_id == 257


def test_folders_are_held_to_what_every_text_model_is_held_to(tmp_path: Path) -> None:
    """An adapter is named as one, and a decoder is not recognised."""
    paradigm, net = build(bert(16, 1), context=8)
    paradigm.export(net, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(compt.ConfigError, match="adapter of PEFT"):
        Mlm().load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert not Mlm().recognises(tmp_path)
