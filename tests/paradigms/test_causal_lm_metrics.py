"""Work out loss, perplexity and bits per byte of causal_lm by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from compt.paradigms.causal_lm.paradigm import CausalLm
from tests.paradigms.lm_models import CONTEXT, TEXTS, corpus, made, prepared, tokens


class Odds(nn.Module):
    """Predicts each token again, with ``odds`` to one against each of the others."""

    def __init__(self, odds: float, size: int) -> None:
        super().__init__()
        self.table = math.log(odds) * torch.eye(size)

    def get_decoder(self):
        return lambda input_ids, **_: SimpleNamespace(last_hidden_state=self.table[input_ids])

    def get_output_embeddings(self):
        return nn.Identity()


def blocks(*rows: list[int]):
    return prepared(CausalLm(), torch.tensor(rows))


def measured(model, batches, *, num_tokens=100, num_bytes=None):
    """The metrics on a split with so many tokens and bytes."""
    paradigm = CausalLm()
    paradigm._tokens_a_byte["val"] = num_tokens / num_bytes if num_bytes else None
    return paradigm.metrics(model, "val", batches)


def test_loss_and_perplexity_by_hand():
    """Guess four tokens with odds of 3.

    The right one has a probability of 1/2, each other one of 1/6. Of five predictions three are a
    repeated token, which is (3 ln 2 + 2 ln 6) / 5, over batches of different sizes.
    """
    batches = [blocks([1, 1, 1], [2, 3, 3]), blocks([0, 2])]
    metrics = measured(Odds(3, 4), batches)
    loss = (3 * math.log(2) + 2 * math.log(6)) / 5
    assert list(metrics) == ["loss", "perplexity"]
    assert metrics["loss"].value == pytest.approx(loss, rel=1e-6)
    assert metrics["perplexity"].value == pytest.approx((2**3 * 6**2) ** (1 / 5), rel=1e-6)
    assert (metrics["loss"].chance, metrics["perplexity"].chance) == (math.log(4), 4.0)
    assert not any(metric.higher_is_better for metric in metrics.values())


def test_bits_per_byte_by_hand():
    """Expect 4 bits a token of even guesses over 16 tokens.

    With 3 bytes a token they are 4/3 bits a byte, which is also chance.
    """
    metrics = measured(Odds(1, 16), [blocks([1, 2, 3])], num_tokens=100, num_bytes=300)
    assert list(metrics) == ["loss", "perplexity", "bits_per_byte"]
    assert metrics["bits_per_byte"].value == pytest.approx(4 / 3, rel=1e-6)
    assert metrics["bits_per_byte"].chance == pytest.approx(4 / 3)
    assert not metrics["bits_per_byte"].higher_is_better
    better = measured(
        Odds(15, 16), [blocks([5, 5, 5])], num_tokens=100, num_bytes=300
    )  # 15 of 30: 1 bit
    assert better["bits_per_byte"].value == pytest.approx(1 / 3, rel=1e-6)


def test_metrics_equal_transformers_loss_over_every_token(tmp_path):
    """On the corpus, in batches of different sizes, against one block at a time."""
    paradigm, model = made(data=corpus(tmp_path), context=CONTEXT)
    dataset = paradigm.build_dataset("val")
    rows = torch.stack([dataset[i]["tokens"] for i in range(len(dataset))])
    with torch.no_grad():
        metrics = CausalLm(data=paradigm.data, context=CONTEXT).metrics(
            model, "val", [prepared(paradigm, chunk) for chunk in rows.split(7)]
        )
        losses = [model(input_ids=row[None], labels=row[None]).loss.item() for row in rows]
    loss = sum(losses) / len(losses)
    text = "".join(TEXTS) * 5
    assert metrics["loss"].value == pytest.approx(loss, rel=1e-6)
    assert metrics["perplexity"].value == pytest.approx(math.exp(loss), rel=1e-5)
    rate = (len(text.encode()) + 1) / len(text.encode())  # one end mark
    assert metrics["bits_per_byte"].value == pytest.approx(loss / math.log(2) * rate, rel=1e-6)
    assert metrics["bits_per_byte"].chance == pytest.approx(math.log2(257) * rate)


def test_tokens_without_known_bytes_have_no_bits_per_byte(tmp_path):
    tokens(40).flatten().numpy().astype("uint16").tofile(tmp_path / "val.bin")
    for options, expected in ({}, []), ({"bytes_per_token": 2.0}, ["bits_per_byte"]):
        data = dict(
            type="tokens", val=str(tmp_path / "val.bin"), cache_dir=str(tmp_path), **options
        )
        paradigm, model = made(data=data)
        with torch.no_grad():
            metrics = paradigm.metrics(model, "val", [prepared(paradigm, tokens())])
        assert list(metrics) == ["loss", "perplexity", *expected]
    assert metrics["bits_per_byte"].value == pytest.approx(
        metrics["loss"].value / math.log(2) / 2, rel=1e-6
    )


def test_a_hopeless_model_has_an_infinite_perplexity():
    model = Odds(2, 4)
    model.table *= 800 / math.log(2)
    metrics = measured(model, [blocks([1, 2, 3])])
    assert metrics["loss"].value == pytest.approx(800)
    assert metrics["perplexity"].value == math.inf
