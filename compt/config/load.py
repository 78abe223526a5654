"""Load a config as a checked ChainConfig, or raise one error with every fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.config.everywhere import check_everywhere
from compt.config.faults import Faults
from compt.config.file import ConfigFile, import_modules, read_config
from compt.config.keys import Key, merge
from compt.config.mmengine_keys import REFUSED, refusal
from compt.config.schema import ChainConfig, StageConfig, StageDefaults
from compt.files import EXPORT, MANIFEST, PLATEAU, WEIGHTS
from compt.interfaces.paradigm import FOLLOW
from compt.shards import stored_at, weights_of


def load_config(
    source: str | Path | Mapping[str, Any] | Config, options: Mapping[str, Any] | None = None
) -> ChainConfig:
    """Read and check a config.

    Args:
        source: path of an mmengine text config, a dict, or a Config.
        options: dotted keys to override, as from ``--cfg-options chain.1.epochs=9``.

    Raises:
        ConfigError: the file cannot be read, or with the list of all faults.
        PluginError: a plug-in that the config names is broken.
    """
    file = read_config(source, options)
    faults = Faults(file.where)
    file = _without_foreign_keys(file, faults)
    raw = dict(file.content)
    import_modules(raw.get("custom_imports"), file.where)
    raw["chain"] = _stages(raw, faults)
    config = ChainConfig.read(raw, faults, file=file)
    check_everywhere(file.content, faults)
    faults.raise_if_any()
    return _following_init(config)


def _following_init(config: ChainConfig) -> ChainConfig:
    """Return a config whose paradigm follows the checkpoint that the first member starts from.

    The members share preprocessing and tokenizer, so all of them have the checkpoint's.
    """
    init = config.stages[0].init
    if not init:
        return config
    path = Path(init)
    if weights_of(path).name == PLATEAU and (path.parent / MANIFEST).is_file():
        path = path.parent
    is_stage = (path / MANIFEST).is_file()
    followed = path / EXPORT if is_stage else path
    if is_stage and not followed.is_dir():  # removed to save space: its weights are there still
        followed = stored_at(path / WEIGHTS)
    return replace(config, paradigm={**config.paradigm, FOLLOW: str(followed)})


def _without_foreign_keys(file: ConfigFile, faults: Faults) -> ConfigFile:
    """Take out what base files say for other programs, and note it where the author says it.

    A base of mmpretrain has helper variables, and keys for a Runner that compt does not build.
    """
    known = ChainConfig.all_keys()
    content = dict(file.content)
    left_out = []
    for name in file.content.keys() - known.keys():
        if name in file.foreign or (name in REFUSED and name not in file.own):
            left_out.append(name)
            del content[name]
        elif name in REFUSED:
            faults.add(refusal(name))
            del content[name]
    return replace(file, content=content, left_out=tuple(sorted(left_out)))


def _stages(raw: Mapping[str, Any], faults: Faults) -> list[StageConfig] | None:
    """Read the members, or return None where there are none, which is a fault of its own."""
    chain = raw.get("chain")
    if not chain and isinstance(chain, (list, tuple, type(None))):
        return None
    is_list = isinstance(chain, (list, tuple))
    if not is_list or not all(isinstance(stage, Mapping) for stage in chain):
        faults.add("chain must be a list of dict(name=..., model=..., epochs=...).")
        return []
    shared = StageDefaults.all_keys()
    stages = []
    for index, own in enumerate(chain):
        values = {name: raw[name] for name in shared if raw.get(name) is not None}
        inherited = values.keys() - own.keys()
        for name, value in own.items():
            if name in shared and shared[name].options.merged:
                value = merge(_filled(shared[name], values.get(name)), value)
            values[name] = value
        stages.append(
            StageConfig.read(values, faults, where=f"chain.{index}.", inherited=inherited)
        )
    return stages


def _filled(declared: Key, value: Any) -> Any:
    """Return the chain's value, or the default, into which a stage's is merged.

    A stage that only changes ``optimizer.lr`` keeps the default optimizer.
    """
    if value is None:
        return declared.default
    fill = declared.options.filled and isinstance(value, Mapping)
    return {**declared.default, **value} if fill else value
