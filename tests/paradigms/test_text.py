"""Hold what paradigms on text models share to the guide's example and to figures by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.paradigms.text import IGNORED, ByteTokenizer, cross_entropy, token_metrics

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"
ELECTRA = dict(
    model_type="electra",
    embedding_size=16,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
)


@pytest.fixture(scope="module")
def guide():
    """The paradigm that the guide writes."""
    section = GUIDE.read_text().partition("### Text models of transformers")[2]
    names = {"__name__": "guide"}
    exec(re.search(r"```python\n(.*?)```", section, re.S).group(1), names)
    return names["Fill"]


def test_the_guides_paradigm_learns_exports_and_loads(guide, tmp_path):
    """Its tokenizer has got a mask, the model a row for it, and the folder both."""
    paradigm = guide(context=8)
    model = paradigm.build_model(Member("a", ELECTRA)).eval()
    tokens = torch.randint(256, (6, 9), generator=torch.Generator().manual_seed(0))
    batch = paradigm.prepare({"tokens": tokens}, generator=torch.Generator().manual_seed(1))
    assert (batch["input_ids"] == 257).sum() == (batch["labels"] != IGNORED).sum() > 0
    outputs = paradigm.forward(model, batch)
    paradigm.loss(outputs, batch)["masked_token"].backward()
    assert all(param.grad is not None for param in model.generator_predictions.parameters())
    assert set(paradigm.metrics(model, "val", [batch])) == {"loss", "accuracy"}
    paradigm.export(model, tmp_path)
    assert paradigm.recognises(tmp_path)
    assert "AutoModelForMaskedLM" in paradigm.export_format(tmp_path).usage
    again = guide().load(tmp_path).eval()
    assert torch.equal(paradigm.forward(again, batch)["logits"], outputs["logits"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(model_type="llama"), r"'llama', which is no ELECTRA(.|\n)*'electra'"),
        (dict(ELECTRA, hidden_sise=3), r"hidden_sise is unknown(.|\n)*hidden_size"),
        (dict(ELECTRA, max_position_embeddings=4), "takes 4 tokens, the context has 8"),
    ],
)
def test_members_are_held_to_the_family(guide, model, message):
    with pytest.raises(ConfigError, match=message):
        guide(context=8).build_model(Member("a", model))


def test_messages_name_the_paradigm(guide):
    with pytest.raises(ConfigError, match="paradigm fill"):
        guide(attention="none")


def test_special_tokens_come_behind_the_vocabulary_once():
    tokenizer = ByteTokenizer()
    before = tokenizer.fingerprint
    tokenizer.add_special_tokens(eos_token="<end>", mask_token="[MASK]")
    assert (tokenizer.size, tokenizer.eos, tokenizer.inner.mask_token_id) == (258, 256, 257)
    assert tokenizer.is_extended and tokenizer.fingerprint != before
    assert not ByteTokenizer().is_extended


def test_token_metrics_by_hand():
    """The model says token 1 with probability 1/2; of four labels one is 1, and two are 2."""
    logits = torch.zeros(1, 5, 3)
    logits[..., 1] = math.log(2)
    labels = torch.tensor([[0, IGNORED, 1, 2, 2]])
    metrics = token_metrics([(logits, labels)])
    assert metrics["loss"].value == pytest.approx((3 * math.log(4) + math.log(2)) / 4)
    assert metrics["loss"].chance == pytest.approx(math.log(3))
    assert (metrics["accuracy"].value, metrics["accuracy"].chance) == (0.25, 0.5)
    assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32


def test_token_metrics_of_nothing_are_no_error():
    assert token_metrics([])["accuracy"].value == 0
    ignored = torch.zeros(1, 2, 3), torch.full((1, 2), IGNORED)
    assert token_metrics([ignored])["loss"].value == 0
