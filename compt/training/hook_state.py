"""Keep what a config's own hooks remember, so that a resumed stage goes on as it would have.

mmengine leaves that to each hook, in ``before_save_checkpoint``. Of hooks that do nothing there the
attributes are kept, as far as they are plain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

FOLLOWED = ("mmengine", "compt")
"""Packages whose hooks keep what they need themselves, or need nothing."""


def hook_states(runner: Runner) -> dict[str, dict[str, Any]]:
    """Return what hooks remember, by their place and class."""
    model = set(map(id, runner.model.modules()))
    states = {}
    for name, hook in _own_hooks(runner):
        attributes = {key: value for key, value in vars(hook).items() if id(value) not in model}
        plain = {key: _state(value) for key, value in attributes.items()}
        states[name] = {key: value for key, value in plain.items() if value is not _NOTHING}
    return states


def restore_hook_states(runner: Runner, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Give hooks back what :func:`hook_states` has returned."""
    for name, hook in _own_hooks(runner):
        for key, value in states.get(name, {}).items():
            own = getattr(hook, key, None)
            if isinstance(own, nn.Module):
                own.load_state_dict(value)
            else:
                setattr(hook, key, value)


_NOTHING = object()
"""In the place of what cannot be kept."""


def _own_hooks(runner: Runner) -> Iterator[tuple[str, Hook]]:
    """Yield the hooks whose attributes are kept."""
    for index, hook in enumerate(runner.hooks):
        kind = type(hook)
        keeps_itself = kind.before_save_checkpoint is not Hook.before_save_checkpoint
        if not (is_followed(hook) or keeps_itself):
            yield f"{index}:{kind.__name__}", hook


def is_followed(hook: Hook) -> bool:
    """Tell whether a hook is of mmengine's own, or compt's."""
    return type(hook).__module__.partition(".")[0] in FOLLOWED


def _state(value: Any) -> Any:
    """Return a value as a checkpoint may hold it."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    return value if _is_plain(value) else _NOTHING


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(type(key) in (str, int) and _is_plain(inner) for key, inner in value.items())
    return type(value) in (type(None), bool, int, float, str, Tensor, nn.Parameter)
