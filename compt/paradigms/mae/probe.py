"""Measure frozen image features by neighbours and a linear classifier of scikit-learn."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor
from torch.utils.data import Dataset, Subset

from compt.errors import ConfigError
from compt.interfaces import Metric
from compt.paradigms.mae.features import label_of

NEIGHBOURS = 20
ITERATIONS = 200
"""Limit the linear classifier alike for all models, whether it has converged or not."""


def with_defaults(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the options of the probes with what they leave out, None for no probes.

    Raises:
        ConfigError: there is no such option.
    """
    if options is None:
        return None
    defaults = {"samples": 2000, "dataset": None}
    if unknown := options.keys() - defaults.keys():
        raise ConfigError(
            f"It has no option {sorted(unknown)}.",
            where="paradigm.probe",
            do="dict(samples=..., dataset=...).",
        )
    samples = options.get("samples", 1)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ConfigError(f"samples={samples!r} is no number from 1 on.", where="paradigm.probe")
    return {**defaults, **options}


def probe(
    train_ND: Tensor, train_label_N: Tensor, test_MD: Tensor, test_label_M: Tensor
) -> dict[str, Metric]:
    """Return the accuracy on test features of classifiers fitted to train features.

    ``knn`` weighs 20 neighbours by distance between unit-length features, ``linear_probe`` is a
    logistic regression on standardised features. Chance is the share of the most frequent class.
    Empty where the train labels are all one class.
    """
    if len(train_label_N.unique()) < 2:
        return {}
    train, labels = train_ND.double().cpu().numpy(), train_label_N.cpu().numpy()
    test, truth = test_MD.double().cpu().numpy(), test_label_M.cpu().numpy()
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(train)), weights="distance").fit(
        normalize(train), labels
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS, C=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(train, labels)
    return {
        name: Metric(float(score), chance=chance(truth), unit="share")
        for name, score in (
            ("knn", knn.score(normalize(test), truth)),
            ("linear_probe", linear.score(test, truth)),
        )
    }


def accuracy(score_NC: Tensor, label_N: Tensor) -> dict[str, Metric]:
    """Return the top-1 accuracy of a classifier's own scores, empty where nothing has a label."""
    known = label_N >= 0
    if not known.any():
        return {}
    right = score_NC[known].argmax(1) == label_N[known]
    return {
        "accuracy": Metric(
            right.double().mean().item(),
            chance=chance(label_N[known].cpu().numpy()),
            unit="share",
        )
    }


def chance(labels: np.ndarray) -> float:
    """Return the share of the most frequent class."""
    return max(Counter(labels.tolist()).values()) / len(labels)


def labelled(dataset: Dataset[Any], samples: int) -> Subset[Any]:
    """Return up to ``samples`` samples with a label, evenly spaced.

    Up to four times as many are read to find them.
    """
    length = len(dataset)  # type: ignore[arg-type]
    step = max(1, -(-length // max(1, samples)))
    chosen: list[int] = []
    for start in range(0, step, max(1, step // 4))[:4]:
        for index in range(start, length, step):
            if len(chosen) < samples and label_of(dataset[index]["data_samples"]) >= 0:
                chosen.append(index)
    return Subset(dataset, sorted(chosen))
