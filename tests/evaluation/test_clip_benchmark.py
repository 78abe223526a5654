"""The suite's metrics are those of clip_benchmark's own command on the same export."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("clip_benchmark", reason='pip install "compt[eval-clip]"')
pytest.importorskip("webdataset", reason='pip install "compt[eval-clip]"')

from clip_benchmark import cli
from clip_benchmark.metrics import zeroshot_classification

from compt.errors import ConfigError, DataError
from compt.evaluation.clip_benchmark import ClipBenchmark
from tests.evaluation import exports, made
from tests.evaluation.repaired import repair_accuracy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    return exports.clip(tmp_path_factory.mktemp("clip") / "export")


@pytest.fixture
def command(tmp_path, monkeypatch, export):
    """Run ``clip_benchmark eval`` on the export, and return the metrics that it writes."""
    repair_accuracy(monkeypatch, zeroshot_classification, as_share=True)

    def call(data: Path, *arguments: str) -> dict[str, float]:
        out = tmp_path / "out.json"
        shared = ["--model", f"local-dir:{export}", "--pretrained", "none", "--num_workers", "0"]
        named = ["--dataset", f"wds/{data.name}", "--dataset_root", str(data), "--output", str(out)]
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval", *named, *shared, *arguments])
        cli.main()
        return json.loads(out.read_text())["metrics"]

    return call


@pytest.mark.parametrize("amp", [True, False])
def test_classification(command, export, tmp_path, amp):
    data = made.classification(tmp_path / "colours")
    theirs = command(data, *([] if amp else ["--no_amp"]))
    ours = ClipBenchmark(data=data, amp=amp, num_workers=0).evaluate(export)
    assert {n: m.value for n, m in ours.items()} == pytest.approx(
        {f"colours/{name}": value for name, value in theirs.items()}, abs=1e-6
    )
    assert 0 < theirs["acc1"] < 1 and theirs["acc1"] < theirs["acc5"]
    assert {n: m.chance for n, m in ours.items()} == pytest.approx(
        {"colours/acc1": 1 / 6, "colours/acc5": 5 / 6, "colours/mean_per_class_recall": 1 / 6}
    )


def test_several_labels(command, export, tmp_path):
    data = made.several_labels(tmp_path / "several")
    theirs = command(data)
    ours = ClipBenchmark(data=data, num_workers=0).evaluate(export)
    (metric,) = ours.values()
    assert metric.value == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    # 36 images with one label, and every fourth, but for the red ones of those, with one more.
    assert metric.chance == pytest.approx((36 + 9 - 3) / (36 * 3))


def test_retrieval(command, export, tmp_path):
    data = made.retrieval(tmp_path / "captions")
    theirs = command(data, "--task", "zeroshot_retrieval", "--recall_k", "1", "5")
    ours = ClipBenchmark(data=data, recall_k=[1, 5], num_workers=2).evaluate(export)
    assert {n: m.value for n, m in ours.items()} == pytest.approx(
        {f"captions/{name}": value for name, value in theirs.items()}, abs=1e-6
    )
    # 24 images with 1, 2 and 3 captions in turn, 48 in all.
    assert ours["captions/image_retrieval_recall@5"].chance == pytest.approx(5 / 24)
    assert ours["captions/text_retrieval_recall@1"].chance == pytest.approx(2 / 48)


def test_more_answers_than_images_are_refused(export, tmp_path):
    data = made.retrieval(tmp_path / "captions")
    with pytest.raises(
        ConfigError, match="has 24 images, of which recall_k asks for the nearest 25"
    ):
        ClipBenchmark(data=data, recall_k=25, num_workers=0).evaluate(export)


def test_prompts_of_a_file_take_the_place_of_the_data_sets_own(export, tmp_path):
    data = made.classification(tmp_path / "colours")
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(made.PROMPTS) + "\n")
    own = ClipBenchmark(data=data, num_workers=0).evaluate(export)
    (data / "zeroshot_classification_templates.txt").unlink()
    given = ClipBenchmark(data=data, templates=file, num_workers=0).evaluate(export)
    assert given == own
    file.write_text("something else altogether, {c} of {c}\n")
    assert ClipBenchmark(data=data, templates=file, num_workers=0).evaluate(export) != own


def test_what_a_data_set_lacks_is_named_before_a_model_is_read(tmp_path):
    data = made.classification(tmp_path / "colours")
    (data / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"lacks classnames\.txt"):
        ClipBenchmark(data=data)
    with pytest.raises(DataError, match=r"val/nshards\.txt"):
        ClipBenchmark(data=data, split="val")
