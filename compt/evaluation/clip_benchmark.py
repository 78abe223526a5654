"""Zero-shot classification and retrieval on WebDatasets by clip_benchmark."""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor
from torch.utils.data import DataLoader

from compt.errors import ConfigError, DataError
from compt.evaluation.images import device, is_open_clip
from compt.evaluation.options import folder, lines, require
from compt.interfaces import Suite
from compt.interfaces.foreign import read_text, tar_members
from compt.interfaces.paradigm import Metric
from compt.registry import Range
from compt.registry.foreign_configs import refuse_code

RETRIEVAL = "retrieval"
Rank = Annotated[int, Range(minimum=1)]
SHARDS = "nshards.txt"
PROGRAMS = frozenset({"pkl", "pickle", "pyd", "pth"})
"""Endings of members of shards that webdataset unpickles, which runs what they say."""
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""What the programs begin with for which Pillow runs Ghostscript."""
CLASSNAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


@dataclass(kw_only=True)
class ClipBenchmark(Suite):
    """Measure zero-shot classification and retrieval on local WebDatasets (clip_benchmark).

    They are in the form of ``clip_benchmark_export_wds`` and of the data sets that clip_benchmark
    publishes. What a folder's ``dataset_type.txt`` says decides the task.
    """

    tool = "clip_benchmark"
    without_effect = frozenset({"num_workers"})

    data: Path | Sequence[Path]
    """Folders of WebDatasets, one or several."""
    split: str = "test"
    """The folder in each that is measured."""
    templates: Path | None = None
    """A text file with a prompt a line, '{c}' standing for the class; by default that of each data
    set."""
    recall_k: Rank | Sequence[Rank] = (1, 5, 10)
    """How many of the nearest count in retrieval."""
    amp: bool = True
    """Whether models run in mixed precision, which is bfloat16 on a CPU."""
    batch_size: Annotated[int, Range(minimum=1)] = 64
    num_workers: Annotated[int, Range(minimum=0)] = 2

    def __post_init__(self) -> None:
        require(["clip_benchmark", "webdataset", "open_clip"], "compt[eval-clip]")
        paths = [self.data] if isinstance(self.data, str | Path) else list(self.data)
        self._folders = [folder(path, "data") for path in paths]
        names = [path.name for path in self._folders]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"Two data sets are called '{repeated[0]}'.", where="data")
        self._prompts = None
        if self.templates is not None:
            self._prompts = lines(Path(self.templates), "templates")
        for path in self._folders:
            self._check(path)

    def _check(self, path: Path) -> None:
        """Raise DataError where a file is missing that clip_benchmark asks for."""
        wanted = [f"{self.split}/{SHARDS}"]
        if _type(path) != RETRIEVAL:
            wanted += [CLASSNAMES, *([TEMPLATES] if self._prompts is None else [])]
        if missing := [name for name in wanted if not (path / name).is_file()]:
            raise DataError(
                f"The WebDataset '{path.name}' lacks {' and '.join(missing)}.",
                where=str(path),
                do="Write it with clip_benchmark_export_wds, name another split, or prompts with "
                "templates=FILE.",
            )
        for number in range(_num_shards(path / self.split / SHARDS)):
            check_members(path / self.split / f"{number}.tar")

    @classmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether it is a folder of open_clip."""
        return is_open_clip(export)

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Return what clip_benchmark measures, by data set, with what guessing would reach."""
        from clip_benchmark.models import load_clip

        from compt.paradigms.clip.folder import read_folder

        refuse_code(read_folder(export), export)
        model, transform, tokenizer = load_clip(
            "open_clip", f"local-dir:{export}", "", None, device=device()
        )
        model.eval()
        metrics = {}
        for path in self._folders:
            for name, metric in self._measure(path, model, transform, tokenizer).items():
                metrics[f"{path.name}/{name}"] = metric
        return metrics

    def _measure(
        self, path: Path, model: Any, transform: Any, tokenizer: Any
    ) -> Mapping[str, Metric]:
        from clip_benchmark.datasets.builder import build_wds_dataset

        data = build_wds_dataset(path.name, transform, self.split, data_dir=str(path))
        # A worker without a shard would fail.
        num_workers = min(self.num_workers, _num_shards(path / self.split / SHARDS))
        loader: DataLoader[Any] = DataLoader(
            data.batched(self.batch_size), batch_size=None, num_workers=num_workers
        )
        if _type(path) == RETRIEVAL:
            return self._retrieved(path.name, model, loader, tokenizer)
        return self._classified(data, model, loader, tokenizer)

    def _retrieved(
        self, name: str, model: Any, loader: Iterable[Any], tokenizer: Any
    ) -> Mapping[str, Metric]:
        from clip_benchmark.metrics.zeroshot_retrieval import evaluate

        counted = _CountedCaptions(loader)
        ks = [self.recall_k] if isinstance(self.recall_k, int) else list(self.recall_k)
        try:
            recalls = evaluate(
                model, counted, tokenizer, device().type, amp=self.amp, recall_k_list=ks
            )
        except RuntimeError as error:
            if max(ks) <= len(counted.captions):
                raise
            raise ConfigError(
                f"The WebDataset '{name}' has {len(counted.captions)} images, of which recall_k "
                f"asks for the nearest {max(ks)}.",
                do="Ask for fewer: recall_k=1,5.",
            ) from error
        return _recalls(recalls, counted.captions, ks)

    def _classified(
        self, data: Any, model: Any, loader: Iterable[Any], tokenizer: Any
    ) -> Mapping[str, Metric]:
        from clip_benchmark.metrics import zeroshot_classification as theirs

        how: dict[str, Any] = dict(device=device().type, amp=self.amp)
        prompts = self._prompts or data.templates
        classifier = theirs.zero_shot_classifier(model, tokenizer, data.classes, prompts, **how)
        scores, truth = theirs.run_classification(model, classifier, loader, **how)
        if truth.ndim == 1:
            return _accuracies(scores, truth)
        precision = theirs.average_precision_per_class(scores, truth).mean().item()
        chance = truth.float().mean().item()
        return {"mean_average_precision": Metric(precision, chance, unit="share")}


class _CountedCaptions:
    """The batches of a WebDataset for retrieval, which count each image's captions."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self.captions: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for images, texts in self._loader:
            self.captions += map(len, texts)
            yield images, texts


def check_members(shard: Path) -> None:
    """Raise DataError where a member of a shard is a program that webdataset or Pillow would run.

    Raises:
        DataError: also where the shard cannot be read.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar_members(tar, shard.stat().st_size):
                ending = member.name.rpartition(".")[2].lower()
                file = tar.extractfile(member) if member.isreg() else None
                if ending in PROGRAMS or (file and file.read(4) in POSTSCRIPT):
                    raise DataError(
                        f"The member '{member.name}' is a program, which measuring would run.",
                        where=str(shard),
                        do="Write the shards anew without it: images and texts are all they need.",
                    )
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"The shard cannot be read: {error}.", where=str(shard), do="Write it anew."
        ) from error


def _num_shards(file: Path) -> int:
    """Return the number in a file of one number.

    Raises:
        DataError: it is none.
    """
    try:
        return int(read_text(file))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The number of shards cannot be read: {error}.", where=str(file), do="Write it anew."
        ) from error


def _type(path: Path) -> str:
    """Return what a WebDataset says of itself, as clip_benchmark reads it."""
    file = path / "dataset_type.txt"
    return read_text(file).strip().lower() if file.is_file() else ""


def _accuracies(score_NC: Tensor, label_N: Tensor) -> dict[str, Metric]:
    """Return clip_benchmark's metrics under its names, with what guessing would reach.

    They are worked out here, as its own function for the accuracy fails from NumPy 2.4 on. The
    accuracy among the best five is left out where there are fewer classes.
    """
    from sklearn.metrics import balanced_accuracy_score

    classes = score_NC.shape[1]
    metrics = {}
    for k in (1, 5) if classes >= 5 else (1,):
        is_among = (score_NC.topk(k).indices == label_N[:, None]).any(1)
        value = is_among.double().mean().item()
        metrics[f"acc{k}"] = Metric(value, k / classes, unit="share")
    recall = balanced_accuracy_score(label_N, score_NC.argmax(1))
    metrics["mean_per_class_recall"] = Metric(float(recall), 1 / classes, unit="share")
    return metrics


def _recalls(
    recalls: Mapping[str, float], captions: Sequence[int], ks: Sequence[int]
) -> dict[str, Metric]:
    """Return clip_benchmark's recalls with the expectation for a random order.

    A text has one image; an image has one of its n texts among the first k of all T by chance with
    1 - C(T - n, k) / C(T, k).
    """
    total = sum(captions)
    metrics = {}
    for k in ks:
        by_chance = [1 - math.comb(total - own, k) / math.comb(total, k) for own in captions]
        chances = {
            f"image_retrieval_recall@{k}": k / len(captions),
            f"text_retrieval_recall@{k}": sum(by_chance) / len(captions),
        }
        for name, chance in chances.items():
            metrics[name] = Metric(recalls[name], chance, unit="share")
    return metrics
