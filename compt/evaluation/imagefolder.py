"""Zero-shot classification of the images in a folder by open_clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from compt.errors import ConfigError
from compt.evaluation.images import described, device, is_open_clip, open_images, open_model
from compt.evaluation.options import folder, lines, require
from compt.interfaces import Suite
from compt.interfaces.paradigm import Metric
from compt.registry import Range

PROMPTS = ("openai", "simple")
"""Names of open_clip's prompts for ImageNet."""
IMAGENET = "imagenet"


@dataclass(kw_only=True)
class ImageFolderZeroShot(Suite):
    """Classify an ImageNet-style folder by names of classes, without training (open_clip).

    The classifier is open_clip's, the mean of the prompts' unit features.
    """

    tool = "open_clip_torch"
    without_effect = frozenset({"num_workers"})

    data: Path
    """A folder with ``SPLIT/CLASS/image``."""
    split: str = "val"
    """The folder in it that is measured."""
    templates: Path | None = None
    """A text file with a prompt a line, '{}' standing for the class, or 'openai' (80 prompts for
    ImageNet) or 'simple' (the best 7 of them); the name alone by default."""
    classnames: Path | None = None
    """A text file with a name a line, in the order of the sorted folders, or 'imagenet' for its
    1000 folders; by default the folders' names, '_' read as a blank."""
    batch_size: Annotated[int, Range(minimum=1)] = 64
    num_workers: Annotated[int, Range(minimum=0)] = 2

    def __post_init__(self) -> None:
        require(["open_clip", "torchvision"], "compt[clip]")
        self._images = open_images(folder(self.data, "data") / self.split)
        self._prompts = _prompts(self.templates)
        self._names = _names(self.classnames, self._images.classes)

    @classmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether it is a folder of open_clip."""
        return is_open_clip(export)

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Return top-1 and top-5 accuracy, of which chance is k of the classes."""
        import open_clip

        from compt.paradigms.clip.metrics import zero_shot

        model = open_model(export)
        classifier = open_clip.build_zero_shot_classifier(
            model.module,
            open_clip.get_tokenizer(f"local-dir:{export}"),
            self._names,
            self._prompts,
            device=device(),
        )
        features, labels = described(model, self._images, self.batch_size, self.num_workers)
        metrics = zero_shot(features, classifier.float().cpu(), labels)
        return {f"{Path(self.data).name}/{name}": metric for name, metric in metrics.items()}


def _prompts(source: Any) -> Sequence[Callable[[str], str] | str]:
    import open_clip

    if source is None:
        return ["{}"]
    if str(source) in PROMPTS:
        named = (open_clip.OPENAI_IMAGENET_TEMPLATES, open_clip.SIMPLE_IMAGENET_TEMPLATES)
        return list(named[PROMPTS.index(str(source))])
    prompts = [line.replace("{c}", "{}") for line in lines(Path(source), "templates")]
    if wrong := [line for line in prompts if line.count("{}") != 1]:
        raise ConfigError(
            f"The prompt {wrong[0]!r} does not have one {{}} for the class.", where="templates"
        )
    return prompts


def _names(source: Any, classes: Sequence[str]) -> Sequence[str]:
    import open_clip

    if source is None:
        return [name.replace("_", " ") for name in classes]
    is_imagenet = str(source) == IMAGENET
    names = open_clip.IMAGENET_CLASSNAMES if is_imagenet else lines(Path(source), "classnames")
    if len(names) != len(classes):
        raise ConfigError(
            f"There are {len(names)} names for {len(classes)} classes.",
            where="classnames",
            do="Give one a line, in the order of the sorted folders.",
        )
    return list(names)
