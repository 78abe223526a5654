"""The suite's metrics are those of lm-evaluation-harness's own command on the same export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason='pip install "compt[eval-lm]"')
pytest.importorskip("accelerate", reason='pip install "compt[eval-lm]"')

from compt.errors import ConfigError
from compt.evaluation.lm_eval import LmEval
from tests.evaluation import exports, made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    return exports.llama(tmp_path_factory.mktemp("llama") / "export")


@pytest.fixture
def offline(tmp_path, monkeypatch) -> None:
    """Caches of this test alone, and no network."""
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_local_tasks(export, tmp_path, offline):
    tasks = made.language_tasks(tmp_path / "tasks")
    names = ["made_sums", "made_code"]
    ours = LmEval(tasks=names, include_path=tasks).evaluate(export)
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", *names]
    command += ["--model_args", f"pretrained={export}", "--include_path", str(tasks)]
    command += ["--batch_size", "8", "--device", "cpu", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    expected = {
        f"{task}/{key.removesuffix(',none')}": value
        for task, measured in theirs.items()
        for key, value in measured.items()
        if isinstance(value, float) and "_stderr" not in key
    }
    assert {name: metric.value for name, metric in ours.items()} == pytest.approx(expected)
    assert set(ours) == {
        *("made_sums/acc", "made_sums/acc_norm"),
        *("made_code/bits_per_byte", "made_code/byte_perplexity"),
    }
    accuracy, bits = ours["made_sums/acc"], ours["made_code/bits_per_byte"]
    assert (accuracy.chance, accuracy.unit, accuracy.higher_is_better) == (0.25, "share", True)
    assert (bits.chance, bits.higher_is_better) == (None, False)
    assert 5 < bits.value < 12  # fresh weights: near the 8 of guessing a byte


def test_a_task_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    tasks = made.language_tasks(tmp_path / "tasks")
    with pytest.raises(ConfigError, match=r"no task .made_sum.*made_sums"):
        LmEval(tasks="made_sum", include_path=tasks)
