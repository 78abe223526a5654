"""Tell frozen image features apart by their neighbours, and by a linear classifier."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from torch.utils.data import Subset

from compt.evaluation.images import (
    described,
    is_image_model,
    open_model,
    open_train_and_test,
)
from compt.evaluation.options import require
from compt.interfaces import Suite
from compt.interfaces.paradigm import Metric
from compt.registry import Range


@dataclass(kw_only=True)
class FrozenFeatures(Suite):
    """Fit a classifier to frozen features of labelled images, and try it on held-out ones."""

    tool = "scikit-learn"
    without_effect = frozenset({"num_workers"})
    metric: ClassVar[str]

    data: Path
    """A folder with ``SPLIT/CLASS/image``."""
    train: str = "train"
    """The folder in it whose images are fitted to."""
    val: str = "val"
    """The folder in it that is measured."""
    samples: Annotated[int, Range(minimum=2)] | None = None
    """Number of training images to fit to, evenly spaced over the classes; all by default."""
    batch_size: Annotated[int, Range(minimum=1)] = 64
    num_workers: Annotated[int, Range(minimum=0)] = 2

    def __post_init__(self) -> None:
        require(["sklearn"], "scikit-learn")
        self._train, self._test = open_train_and_test(self.data, self.train, self.val)

    @classmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether it is of open_clip or mmpretrain, or is or holds a folder of timm."""
        return is_image_model(export)

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Return the accuracy, of which chance is the share of the most frequent class."""
        model = open_model(export)
        number = len(self._train)
        chosen = np.linspace(0, number - 1, min(self.samples or number, number)).round()
        subset = Subset(self._train, chosen.astype(int).tolist())
        (train, names), (test, truth) = (
            described(model, images, self.batch_size, self.num_workers)
            for images in (subset, self._test)
        )
        classes = [np.asarray(images.classes) for images in (self._train, self._test)]
        # By name: a split without some of the classes numbers the others otherwise.
        fitted, right = classes[0][names.numpy()], classes[1][truth.numpy()]
        classifier = self.classifier(len(train))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="lbfgs failed to converge")
            classifier.fit(train.double().numpy(), fitted)
        score = float(classifier.score(test.double().numpy(), right))
        chance = max(Counter(right.tolist()).values()) / len(right)
        return {f"{Path(self.data).name}/{self.metric}": Metric(score, chance, unit="share")}

    @abstractmethod
    def classifier(self, num_samples: int) -> Any:
        """Return scikit-learn's classifier for this many samples, not fitted."""


@dataclass(kw_only=True)
class Knn(FrozenFeatures):
    """Classify images by the nearest training images, in frozen features (scikit-learn).

    Features are of unit length, and neighbours weigh by their distance.
    """

    metric = "knn"

    neighbours: Annotated[int, Range(minimum=1)] = 20
    """How many decide."""

    def classifier(self, num_samples: int) -> Any:
        """Return a kNN classifier behind a normalizer."""
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import Normalizer

        neighbours = min(self.neighbours, num_samples)
        return make_pipeline(Normalizer(), KNeighborsClassifier(neighbours, weights="distance"))


@dataclass(kw_only=True)
class LinearProbe(FrozenFeatures):
    """Fit a linear classifier to frozen features of training images (scikit-learn).

    It is a logistic regression on standardised features.
    """

    metric = "linear_probe"

    strength: Annotated[float, Range(positive=True)] = 0.1
    """Inverse of the L2 penalty's strength, scikit-learn's C."""
    iterations: Annotated[int, Range(minimum=1)] = 200
    """Limit of the solver, alike for all models whether it has converged or not."""

    def classifier(self, num_samples: int) -> Any:
        """Return a logistic regression behind a scaler."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regression = LogisticRegression(C=self.strength, max_iter=self.iterations)
        return make_pipeline(StandardScaler(), regression)
