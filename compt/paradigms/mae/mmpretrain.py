"""Build models of mmpretrain from configs, and read and write its checkpoints."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from rich.pretty import pretty_repr
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.errors import ConfigError
from compt.interfaces import ExportFormat, Member
from compt.interfaces.foreign import assignments, literal, read_literals
from compt.registry.foreign_configs import check_types
from compt.shards import SUFFIX, weights_of
from compt.weights import check_unpacked, plain_state, read_checkpoint, read_state, saving

# mmpretrain warns while it is imported of compiled operators that mmcv-lite does not have. Nothing
# here needs them, and users could do nothing about the warnings that every command would print.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mmpretrain.utils import dependency

    # Where pycocotools is installed, which clip_benchmark brings, mmpretrain also imports models of
    # images and text, and those fail with transformers 5.
    if dependency.satisfy_requirement("transformers>=5"):
        dependency.WITH_MULTIMODAL = False
    from mmpretrain.models import MAE, BaseClassifier, ImageClassifier, MAEViT, VisionTransformer
    from mmpretrain.registry import MODELS
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)

__all__ = ["MAE", "MODELS", "ImageClassifier", "MAEViT", "VisionTransformer"]
PIXELS: Mapping[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
CONFIG_FILE, WEIGHTS_FILE = "model.py", "model.pth"
FORMAT = ExportFormat(
    loaded_by="mmpretrain",
    usage="import mmpretrain\n\n"
    f"model = mmpretrain.get_model('FOLDER/{CONFIG_FILE}', pretrained='FOLDER/{WEIGHTS_FILE}')\n",
    task="image-feature-extraction",
    single_file="mmpretrain loads one checkpoint",
)
AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema")
"""Keys under which timm's, mmengine's and DeiT's trainers keep averages beside the weights."""
OF_MODEL = ("model", "data_preprocessor")
OF_IMAGES = frozenset({"test_pipeline", "test_dataloader", "val_dataloader"})
"""Names in a checkpoint's config that say how held-out images are prepared."""


@contextmanager
def scope() -> Iterator[None]:
    """Find names without a prefix in mmpretrain, as in its own configs."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield


def model_config(member: Member) -> dict[str, Any]:
    """Return a member's mmpretrain config.

    That is the dict itself, or ``model`` of a config file or an exported folder.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(member.model, Mapping):
        content = Config(dict(member.model)).to_dict()
        is_wrapped = "model" in content and "type" not in content
        return config_of(content, member.name) if is_wrapped else content
    path = Path(str(member.model))
    file = path / CONFIG_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"The model of member '{member.name}' is no mmpretrain config: {member.model!r}.",
            do="Give dict(type='mmpretrain.MAE', backbone=..., ...), "
            "the path of a config file, or an exported folder.",
        )
    return config_of(_stored(path) if path.is_dir() else _program(file), file)


def _program(path: Path) -> dict[str, Any]:
    """Return the content of a config file that a config or a command names, which is run.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        content: dict[str, Any] = Config.fromfile(str(path)).to_dict()
    except (Exception, SystemExit) as error:  # a config is a program: anything can be wrong in it
        raise ConfigError(
            f"The config cannot be read: {type(error).__name__}: {error}", where=str(path)
        ) from error
    return content


def _stored(folder: Path) -> dict[str, Any]:
    """Return the config in a folder of :func:`save`, of which nothing is run.

    Raises:
        ConfigError: it cannot be read, or is more than literals of known types.
    """
    content = read_literals(folder / CONFIG_FILE)
    check_types([content.get(name) for name in OF_MODEL], folder / CONFIG_FILE)
    return content


def config_of(content: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """Return the model of a config, with the pre-processing that stands beside it."""
    if "model" not in content:
        raise ConfigError(f"'{where}' has no `model`.", do="Give a config of mmpretrain.")
    model = dict(content["model"])
    if content.get("data_preprocessor"):
        model.setdefault("data_preprocessor", content["data_preprocessor"])
    return model


def default_preprocessor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a model's pixels are prepared where its config does not say.

    They are turned from BGR to RGB and normalised by ImageNet's mean and deviation.
    """
    with scope():
        algorithm = MODELS.get(config.get("type"))
    classifier = isinstance(algorithm, type) and issubclass(algorithm, BaseClassifier)
    return {
        "type": f"mmpretrain.{'Cls' if classifier else 'SelfSup'}DataPreprocessor",
        **PIXELS,
        "to_rgb": True,
    }


def build(config: Mapping[str, Any], name: str, *, fresh: bool = True) -> nn.Module:
    """Build a model of mmpretrain with fresh weights.

    On the meta device, or without ``fresh``, its weights are not initialised.

    Raises:
        ConfigError: an unknown type or argument, or sizes that do not fit each other.
    """
    try:
        with scope(), _quiet():
            model = _made(config)
            if fresh and not any(parameter.is_meta for parameter in model.parameters()):
                model.init_weights()  # type: ignore[operator]
    except Exception as error:  # mmengine wraps whatever a constructor raises
        raise ConfigError(
            f"mmpretrain cannot build the model of member '{name}': "
            f"{type(error).__name__}: {error}",
            do="Check its types, arguments and sizes: heads must divide widths, patches the image.",
        ) from error
    model.mmpretrain_config = Config(dict(config)).to_dict()  # type: ignore[assignment]
    return model


def _made(config: Mapping[str, Any]) -> nn.Module:
    """Build a model, on the meta device by way of the CPU where need be."""
    try:
        model: nn.Module = MODELS.build(dict(config))
    except Exception:
        if torch.get_default_device().type != "meta":
            raise
        # Swin's constructor reads drop path rates from a tensor; on meta they have no values.
        with torch.device("cpu"):
            model = MODELS.build(dict(config)).to("meta")
    return model


def build_dataset(config: Mapping[str, Any]) -> tuple[Dataset[Any], tuple[str, ...]]:
    """Build a data set of mmpretrain, and return it with the names of its classes."""
    with scope():
        dataset: Dataset[Any] = DATASETS.build(config)
    return dataset, tuple(getattr(dataset, "CLASSES", None) or ())


def image_size(model: nn.Module) -> tuple[int, int]:
    """Return the height and width that a model's backbone is made for.

    Raises:
        ConfigError: it does not say, as a ResNet.
    """
    backbone: Any = getattr(model, "backbone", None)
    patch_embed = getattr(backbone, "patch_embed", None)
    size = getattr(backbone, "img_size", None) or getattr(patch_embed, "init_input_size", None)
    if size is None:
        raise ConfigError(
            f"A {type(backbone).__name__} does not say what size of images it is for.",
            do="Use an algorithm of mmpretrain around a ViT or a Swin.",
        )
    height, width = size
    return height, width


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep mmengine's reports of how each parameter was initialised out of the terminal."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def save(
    model: nn.Module,
    folder: Path,
    *,
    test_pipeline: Sequence[Mapping[str, Any]] = (),
    dataset_meta: Mapping[str, Any] | None = None,
) -> None:
    """Write config and checkpoint.

    ``mmpretrain.get_model(config, pretrained=checkpoint)`` reads them.

    Args:
        model: with its config.
        folder: to write to.
        test_pipeline: transforms of held-out images, for mmpretrain's inferencers.
        dataset_meta: what the checkpoint says of the data set, such as the names of classes.
    """
    content: dict[str, Any] = dict(model=model.mmpretrain_config)
    if test_pipeline:
        pipeline = [dict(step) for step in test_pipeline]
        content["test_dataloader"] = dict(dataset=dict(pipeline=pipeline))
    # mmengine formats a config with yapf, for a second where the model is large.
    items = Config(content).to_dict().items()
    config = "".join(f"{name} = {pretty_repr(value, max_width=88)}\n" for name, value in items)
    meta: dict[str, Any] = {"cfg": config}
    if dataset_meta:
        meta["dataset_meta"] = dict(dataset_meta)
    with saving(folder / CONFIG_FILE) as file:
        file.write_text(config, encoding="utf-8")
    # Given a path, torch writes its name into the file, and this one's is another each time.
    with saving(folder / WEIGHTS_FILE) as path, open(path, "wb") as file:
        torch.save({"meta": meta, "state_dict": model.state_dict()}, file)


def recognises(path: Path) -> bool:
    """Say whether a path is a folder of :func:`save` or a checkpoint that holds its config."""
    if path.is_dir():
        return (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file()
    if path.suffix not in (".pth", ".pt"):
        return False
    try:
        return "model" in _config_inside(_checkpoint(path))
    except ConfigError:
        return False


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and state dict of a path that :func:`recognises` accepts."""
    if path.is_dir():
        return config_of(_stored(path), path / CONFIG_FILE), read_weights(path)
    content = _checkpoint(path)
    return config_of(_inside(content, path), path), plain_state(content, path)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config and the checkpoint's ``meta`` of a path that :func:`recognises` accepts."""
    content = _checkpoint(path / WEIGHTS_FILE if path.is_dir() else path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    config = _stored(path) if path.is_dir() else _inside(content, path)
    return config, dict(meta) if isinstance(meta, Mapping) else {}


def averages_in(path: Path) -> list[str]:
    """Return the keys under which a checkpoint of a trainer holds averages of its weights."""
    if weights_of(path).suffix == SUFFIX:
        return []
    try:
        content = _checkpoint(path)
    except ConfigError:
        return []
    entries = content if isinstance(content, Mapping) else {}
    return [key for key in AVERAGES if isinstance(entries.get(key), Mapping)]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a folder of :func:`save`, or of any file of weights."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if weights_of(file).suffix == SUFFIX:
        return read_state(file)
    return plain_state(_checkpoint(file), path)


class _LeftOut:
    """Stand for an object in a checkpoint that is neither a tensor nor a plain type.

    The object itself is not made, so that no code of a checkpoint runs.
    """

    def __new__(cls, *args: Any) -> _LeftOut:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


def _checkpoint(path: Path) -> Any:
    """Read a file of torch.save without the objects in it.

    mmengine's Runner puts its log beside the weights.
    """
    check_unpacked(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, RuntimeError, ValueError):  # no file of torch.save
        names = []
    with torch.serialization.safe_globals([(_LeftOut, name) for name in names]):
        return read_checkpoint(path)


def _inside(content: Any, path: Path) -> dict[str, Any]:
    """Return the config that a checkpoint holds as text.

    Raises:
        ConfigError: its model is of a type that is not known.
    """
    config = _config_inside(content)
    check_types([config.get(name) for name in OF_MODEL], path)
    return config


def _config_inside(content: Any) -> dict[str, Any]:
    """Return what the config that a checkpoint holds as text says of its model.

    It is parsed, not run. Empty where there is none, or where it is more than literals.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    try:
        steps = assignments(text) if isinstance(text, str) else {}
        values = {name: literal(steps[name]) for name in OF_MODEL if name in steps}
    except (RecursionError, TypeError, ValueError):
        return {}
    for name in OF_IMAGES & steps.keys():
        with suppress(
            RecursionError, TypeError, ValueError
        ):  # more than literals: not of the model
            values[name] = literal(steps[name])
    return values
