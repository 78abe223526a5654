"""Collect all faults of a config, to report them at once."""

from __future__ import annotations

from collections.abc import Iterable

from compt.errors import ConfigError, did_you_mean


class Faults:
    """All that is wrong with one config."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.sentences: list[str] = []
        self.num_noted = 0
        """How often a fault was noted, repeated ones too: it tells whether a value is at fault."""

    def add(self, fault: str) -> None:
        """Note one fault, a sentence that begins with the key, unless it is noted already.

        A value of the chain is checked again in every stage that inherits it.
        """
        self.num_noted += 1
        if fault not in self.sentences:
            self.sentences.append(fault)

    def names(self, path: str) -> bool:
        """Tell whether a fault is noted of the value at this path, or of one that it lies in."""
        parts = path.split(".")
        above = {".".join(parts[: length + 1]) for length in range(len(parts))}
        return any(sentence.partition(" ")[0].rstrip(":") in above for sentence in self.sentences)

    def unknown(self, where: str, key: str, known: Iterable[str]) -> None:
        """Note a key that does not exist, with the nearest that do."""
        self.add(f"{where}{key} is not a key of compt.{did_you_mean(key, known)}")

    def raise_if_any(self) -> None:
        """Raise one ConfigError with all faults, if there are any."""
        if not self.sentences:
            return
        count = len(self.sentences)
        lines = "\n".join(f"  - {sentence}" for sentence in self.sentences)
        raise ConfigError(
            f"The config has {count} fault{'s' * (count > 1)}:\n{lines}",
            where=self.where,
            do="See docs/config.md for every key. Helper variables of a config begin with '_'.",
        )
