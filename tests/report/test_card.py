"""Model cards: valid in Hugging Face's format, and true of what was trained."""

from __future__ import annotations

import math

import pytest
import yaml

from compt.files import CARD, CARD_MARK
from compt.interfaces import ExportFormat
from compt.report.card import growth_card, model_name, read_head, stage_card
from compt.report.growth import GrowthReport
from compt.report.metrics import MetricValue
from compt.report.record import StageRecord
from tests.report.records import stage_record

LIBRARY = ExportFormat("open_clip", "load('FOLDER')\n", "zero-shot-image-classification")
GROWTH = GrowthReport(
    "lossless", True, error=3e-7, counts=dict(copied=2, expanded=5), dropped=("head.bias",)
)
METRICS = {
    "val/top1": MetricValue(0.62, 0.01, unit="share"),
    "val/loss": MetricValue(1.5, None, higher_is_better=False, unit="nats"),
    "val/broken": MetricValue(None),
}
CONFIG = dict(
    paradigm=dict(type="clip", data=dict(type="icons", samples=2000)),
    chain=[dict(name="s"), dict(name="b")],
    card=dict(license="apache-2.0", tags=["icons"]),
)


def small(**changes) -> StageRecord:
    return stage_record("s", [(10, 100.0, 1.0, 1.9)], **dict(mode="chain", samples=640) | changes)


def grown(**changes) -> StageRecord:
    keys = dict(
        index=1,
        mode="chain",
        paradigm="clip",
        flops=300.0,
        samples=320,
        params=22_000_000,
        grower="lossless",
        growth=GROWTH,
        metrics=METRICS,
    )
    return stage_record("b", [(5, 300.0, 1.0, 1.5)], **keys | changes)


def head_of(text: str) -> dict:
    front, _, body = text.removeprefix("---\n").partition("---\n")
    assert body.startswith(f"\n{CARD_MARK}\n# ")
    return yaml.safe_load(front)


def of_stage(*records, config=CONFIG, **options):
    return stage_card(records, chain="run", config=config, **options).text(LIBRARY)


def test_a_card_says_lineage_cost_data_metrics_with_chance_and_use():
    text = of_stage(small(), grown(), data_licence="MIT")
    head = head_of(text)
    assert (head["library_name"], head["license"]) == ("open_clip", "apache-2.0")
    assert head["base_model"] == "run/s" and "base_model_relation" not in head
    assert {"compt", "clip", "model-growth", "icons"} == set(head["tags"])
    assert "member 2 of 2 of the chain s -> b" in text and "22 M parameters" in text
    assert "grown from `run/s` by `lossless`" in text and "3.0e-07" in text
    assert "2 copied, 5 expanded" in text and "1 dropped" in text
    assert "| all of them |  | 960 | 400 FLOP |" in text
    assert "`icons` with samples=2000" in text and "Licence: MIT." in text
    assert "| val/top1 | 62.0 % | 0.01 | share |" in text
    assert "load('path/to/this/folder')" in text


def test_hugging_face_reads_the_card_as_it_was_written(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / CARD).write_text(of_stage(small(), grown()), encoding="utf-8")
    card = hub.ModelCard.load(tmp_path / CARD)
    assert card.data.to_dict()["model-index"] == head_of(str(card))["model-index"]
    top, loss = card.data.eval_results
    assert (top.metric_type, top.metric_value, top.dataset_type) == ("top1", 0.62, "icons")
    assert top.metric_args == dict(unit="share", chance=0.01)
    assert loss.metric_args == dict(unit="nats")
    assert card.data.base_model == "run/s"
    assert math.isfinite(top.metric_value) and len(card.data.eval_results) == 2
    hub.ModelCardData(**card.data.to_dict(), ignore_metadata_errors=False)


def test_a_member_that_starts_from_a_checkpoint_takes_over_its_licence(tmp_path):
    source = dict(license="mit", datasets=["laion/laion400m"], language="en", tags=["x"])
    config = dict(CONFIG, chain=[dict(name="s", init=str(tmp_path / "base"))], card={})
    head = head_of(of_stage(small(), config=config, source=source))
    assert (head["license"], head["datasets"], head["language"]) == (
        "mit",
        ["laion/laion400m"],
        "en",
    )
    assert "x" not in head["tags"], "tags of another model are not this one's"
    assert (head["base_model"], head["base_model_relation"]) == ("base", "finetune")
    own = dict(config, card=dict(license="apache-2.0", base_model="laion/base"))
    head = head_of(of_stage(small(), config=own, source=source))
    assert (head["license"], head["base_model"]) == ("apache-2.0", "laion/base")


def test_a_member_trained_alone_has_no_base_and_its_own_cost():
    text = of_stage(small(mode="individual"), config=dict(CONFIG, card={}))
    head = head_of(text)
    assert "base_model" not in head and "license" not in head
    assert "trained alone" in text and "trained from scratch" in text and "all of them" not in text


def test_growth_that_is_not_exact_says_why():
    report = GrowthReport("leading_block", False, "the norm reads other units", error=0.4)
    text = of_stage(small(), grown(growth=report))
    assert "did not compute what its source did: the norm reads other units" in text
    assert "differed by 4.0e-01" in text


def test_what_compt_grow_writes_names_its_source(tmp_path):
    source = tmp_path / "vit-s"
    source.mkdir()
    (source / CARD).write_text("---\nlicense: mit\n---\n# theirs\n")
    report = dict(
        GROWTH.to_json(), dtype="bfloat16", rounding_error=0.01, out="o", notes=[], params={}
    )
    text = growth_card(report, source, tmp_path / "vit-b").text(LIBRARY)
    head = head_of(text)
    assert (head["base_model"], head["license"]) == ("vit-s", "mit")
    assert "not trained since" in text and "bfloat16" in text and "1.0e-02" in text


@pytest.mark.parametrize("content", ["# no head", "---\n- a list\n---\n", "---\na: [\n---\n", ""])
def test_cards_that_cannot_be_read_say_nothing(content, tmp_path):
    (tmp_path / CARD).write_text(content)
    assert read_head(tmp_path) == {}
    assert read_head(tmp_path / "nowhere") == {}


def test_a_stage_is_named_after_its_chain_and_a_file_after_itself(tmp_path):
    stage = tmp_path / "run" / "01_s"
    stage.mkdir(parents=True)
    record = small()
    record.write(stage / "manifest.json")
    assert model_name(stage) == model_name(stage / "export") == "run/s"
    assert model_name(tmp_path / "weights.pth") == "weights"
