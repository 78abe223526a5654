"""Say what a checkpoint of mmpretrain or timm holds beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from compt.paradigms.mae import mmpretrain, timm_vit
from compt.paradigms.mae.data import Resize
from compt.registry.foreign_configs import check_types

PIXELS = ("mean", "std", "to_rgb")
"""Keys of mmpretrain's data_preprocessor that say how pixels become a model's input."""


def pixels_in(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a data_preprocessor says of how pixels become a model's input."""
    return {key: preprocessor[key] for key in PIXELS if preprocessor.get(key) is not None}


def preprocessor_like(default: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data_preprocessor of the default's type with what a source says of pixels.

    All of the source's, where it is of that type.
    """
    kinds = [str(each.get("type", "")).rpartition(".")[2] for each in (default, source)]
    if kinds[0] == kinds[1]:
        return {**default, **source}
    return {**default, **pixels_in(source)}


@dataclass(frozen=True)
class Followed:
    """What a checkpoint says that is not of its model's size."""

    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    """mmpretrain's data_preprocessor, or of timm ``mean``, ``std`` and ``to_rgb`` of one."""
    resize: Resize = field(default_factory=Resize)
    test_pipeline: tuple[Mapping[str, Any], ...] = ()
    """mmpretrain's transforms of held-out images, as its config has them."""
    timm: Mapping[str, Any] = field(default_factory=dict)
    """Content of timm's config.json."""
    dataset_meta: Mapping[str, Any] = field(default_factory=dict)
    """What mmpretrain keeps of the data set, the names of its classes above all."""

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The transforms of held-out images, without those that read files."""
        return [step for step in self.test_pipeline if not _reads_files(step)]


def _reads_files(step: Mapping[str, Any]) -> bool:
    return str(step.get("type", "")).rpartition(".")[2].startswith("Load")


def read(path: Path) -> Followed | None:
    """Return what a checkpoint says beside its weights, None where it is of weights alone.

    It is read once in a process, as long as it does not change: every stage asks.

    Raises:
        ConfigError: a folder's config cannot be read.
    """
    if not path.exists():  # which loading it says
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return _read(path, tuple(file.stat().st_mtime_ns for file in files))


def averages(path: Path) -> list[str]:
    """Return under which keys a trainer's checkpoint holds averages, read once as by ``read``."""
    return _averages(path, path.stat().st_mtime_ns) if path.is_file() else []


@lru_cache(maxsize=4)
def _averages(path: Path, changed: int) -> list[str]:
    return mmpretrain.averages_in(path)


@lru_cache(maxsize=4)
def _read(path: Path, changed: tuple[int, ...]) -> Followed | None:
    if mmpretrain.recognises(path):
        return _of_mmpretrain(path)
    if timm_vit.recognises(path):
        return _of_timm(timm_vit.read_folder(path))
    return None


def _of_mmpretrain(path: Path) -> Followed:
    content, meta = mmpretrain.read_config(path)
    model = mmpretrain.config_of(content, path)
    pixels = dict(model.get("data_preprocessor") or {})
    loader = content.get("test_dataloader") or content.get("val_dataloader") or {}
    pipeline = (loader.get("dataset") or {}).get("pipeline") or content.get("test_pipeline") or ()
    check_types(pipeline, path)
    names = [step["interpolation"] for step in pipeline if step.get("interpolation")]
    classes = meta.get("CLASSES")
    return Followed(
        preprocessor=pixels,
        resize=Resize(*names[:1]),
        test_pipeline=tuple(pipeline),
        dataset_meta=meta.get("dataset_meta") or ({"classes": classes} if classes else {}),
    )


def _of_timm(content: Mapping[str, Any]) -> Followed:
    pixels = timm_vit.pretrained_cfg(content)
    scaled = {key: [255 * value for value in pixels[key]] for key in ("mean", "std")}
    options = {key: pixels[key] for key in ("interpolation", "crop_pct", "crop_mode")}
    classes = labels_of(content)
    return Followed(
        preprocessor={**scaled, "to_rgb": True},
        resize=Resize(**options),
        timm=content,
        dataset_meta={"classes": classes} if classes else {},
    )


def labels_of(content: Mapping[str, Any]) -> list[str]:
    """Return the names of timm's classes in order, none where they are not numbered from 0."""
    names = content.get("label_names") or timm_vit.own_cfg(content).get("label_names") or []
    if isinstance(names, Mapping):
        names = [names.get(str(number)) for number in range(len(names))]
    return list(names) if isinstance(names, Sequence) and None not in names else []
