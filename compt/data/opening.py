"""Opens what a config's ``data=dict(type=..., ...)`` names, by the registry of data sources."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from compt.errors import ConfigError, PluginError, did_you_mean, located
from compt.interfaces import DataSource, Text
from compt.registry import DATA


def build_source(cfg: Mapping[str, Any], *needs: Collection[str]) -> DataSource:
    """Build the source that a data config names, without reading data.

    Args:
        cfg: ``dict(type=..., ...)``, the options of the source beside its type.
        needs: what samples must hold, such as ``('image', 'captions')``; of several one must be
            met, none asks for nothing.

    Raises:
        ConfigError: there is no such type or option, an option cannot be, or the source does not
            provide what is needed.
        PluginError: the source is a plug-in that is broken or declared more than once.
    """
    kind = cfg.get("type")
    if kind is None or (isinstance(kind, str) and kind not in DATA):
        raise _unknown(kind)
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    with located(f"data of type '{name}'"):
        source: DataSource = DATA.build(cfg)
    if needs and not _meets(source.provides, needs):
        raise _lacks(name, source, needs)
    return source


def open_source(type: str, split: str, **options: Any) -> Any:
    """Open one split of a source, as its ``open`` returns it.

    Args:
        type: name of a data source: a built-in or a plug-in.
        split: 'train' or one of :func:`splits`.
        options: those of the source, for sources of files with the file or folder of each split.

    Raises:
        ConfigError: unknown type, split or option.
        DataError: the data is missing or damaged.
    """
    source = build_source({"type": type, **options})
    with located(f"data of type '{type}'"):
        return source.open(split)


def open_text(cfg: Mapping[str, Any], split: str) -> Text:
    """Open one split of a source of text, as an iterable of its documents, each a str.

    Raises:
        ConfigError: as for :func:`build_source`, and where the source provides no text.
        DataError: the data is missing; while iterating, damaged.
    """
    source = build_source(cfg, ["text"])
    with located(f"data of type '{cfg['type']}'"):
        text: Text = source.open(split)
    return text


def splits(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the held-out splits of a data config ``dict(type=..., ...)``, in its order.

    Raises:
        ConfigError: unknown type or option.
    """
    return build_source(cfg).held_out


def _meets(provides: frozenset[str], needs: Sequence[Collection[str]]) -> bool:
    return any(provides.issuperset(need) for need in needs)


def _unknown(kind: str | None) -> ConfigError:
    names = DATA.names()
    near = did_you_mean(kind, names)
    return ConfigError(
        "The data has no type." if kind is None else f"No data named '{kind}'.{near}",
        where="data",
        do=f"Available: {', '.join(names)}. Others install by pip: a package that declares the "
        f"entry-point group '{DATA.group}'.",
    )


def _lacks(name: str, source: DataSource, needs: Sequence[Collection[str]]) -> ConfigError:
    """Describe a source that does not provide what is needed, and name those that do."""
    wanted = " or ".join(" and ".join(need) for need in needs)
    provided = " and ".join(sorted(source.provides)) or "nothing"
    lack = " with these options" if _meets(type(source).provides, needs) else ""
    return ConfigError(
        f"The paradigm needs data with {wanted}; type '{name}' provides {provided}{lack}.",
        where="data",
        do=f"These provide it: {', '.join(_providers(needs)) or 'none that is installed'}.",
    )


def _providers(needs: Sequence[Collection[str]]) -> list[str]:
    """Name the sources that can provide what is needed, of those that can be loaded."""
    names = []
    for name in DATA.names():
        try:
            provides: Any = DATA.get(name).provides  # type: ignore[attr-defined]
        except PluginError:
            continue
        if isinstance(provides, frozenset) and _meets(provides, needs):
            names.append(name)
    return names
