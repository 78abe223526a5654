"""Save modules that no library saves, as weights with a config beside them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from compt.errors import ComptError, ConfigError
from compt.interfaces import Member, Paradigm
from compt.interfaces.foreign import read_json
from compt.weights import load_weights, save_weights


class OwnModels(Paradigm, ABC):
    """A base of paradigms that bring modules of their own.

    A member's ``model`` is a dict of what ``build_net`` takes, or an exported folder, whose weights
    are not read. An export is ``NAME.json``, with that dict and the ``settings``, and
    ``NAME.safetensors``. A subclass writes ``build_net``; see ``docs/plugins.md``.
    """

    file_name: ClassVar[str]
    """The name of both files, without its ending."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes of the paradigm that decide what ``build_net`` makes, besides the dict.

    They are written as JSON. ``load`` sets them, as long as no member has been built with others.
    """
    _has_members = False

    @abstractmethod
    def build_net(self, name: str, **config: Any) -> nn.Module:
        """Build a member's module with fresh weights, on the current device.

        What it raises becomes a ConfigError that names the member.

        Args:
            name: of the member.
            config: its ``model``.
        """

    def build_model(self, member: Member) -> nn.Module:
        """Build a module with fresh weights.

        Raises:
            ConfigError: ``build_net`` does not take the member's dict, or it is none.
        """
        config = member.model
        if isinstance(config, str | Path) and self.recognises(Path(config)):
            config = self._content(Path(config))["model"]
        if not isinstance(config, Mapping):
            raise ConfigError(
                f"The model of member '{member.name}' is {config!r}: no dict, and no folder of "
                f"{self.file_name}.json."
            )
        model = self._built(member.name, config)
        self._has_members = True
        return model

    def _built(self, name: str, config: Mapping[str, Any]) -> nn.Module:
        try:
            model = self.build_net(name, **config)
        except ComptError:
            raise
        except Exception as error:  # whatever the modules inside it raise
            raise ConfigError(
                f"The model of member '{name}' cannot be: {type(error).__name__}: {error}"
            ) from error
        model.member_config = dict(config)  # type: ignore[assignment]
        return model

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write config and weights."""
        settings = {name: getattr(self, name) for name in self.settings}
        content = json.dumps({"model": model.member_config, **settings}, indent=1)
        (folder / f"{self.file_name}.json").write_text(content + "\n", encoding="utf-8")
        save_weights(model, folder / f"{self.file_name}.safetensors")

    def recognises(self, path: Path) -> bool:
        """Say whether a path is a folder of ``export``."""
        endings = (".json", ".safetensors")
        return all((path / f"{self.file_name}{ending}").is_file() for ending in endings)

    def load(self, path: Path) -> nn.Module:
        """Load a folder of ``export``.

        Raises:
            ConfigError: it is none, or damaged.
        """
        content = self._content(path)
        own = {name: getattr(self, name) for name in self.settings}
        for name in self.settings:
            value = content[name]
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        try:
            model = self._built(path.name, content["model"])
        finally:
            if self._has_members:  # built with the paradigm's own settings, as others will be
                for name, value in own.items():
                    setattr(self, name, value)
        load_weights(model, path / f"{self.file_name}.safetensors")
        return model

    def _content(self, path: Path) -> dict[str, Any]:
        """Read the config of a folder."""
        file = path / f"{self.file_name}.json"
        needed = {"model", *self.settings}
        try:
            content = read_json(file)
            if not isinstance(content, dict) or not needed <= content.keys():
                raise ValueError(f"it has no {', '.join(sorted(needed))}")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"'{file}' cannot be read: {error}",
                do="Give a folder that compt exported, complete.",
            ) from error
        return content
