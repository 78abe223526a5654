"""What the tests of a source of data have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from compt.errors import ComptError
from compt.interfaces import DataSource, Images, ImageSource, Text, TextSource, Tokens, TokenSource
from compt.registry import DATA
from compt.testing._contract import Contract
from compt.testing._shared import Violation, described

INTERFACES: Mapping[str, tuple[type[DataSource], type]] = {
    "image": (ImageSource, Images),
    "text": (TextSource, Text),
    "tokens": (TokenSource, Tokens),
}
"""What a source may provide -> the interface it then keeps, and what ``open`` returns."""


class SourceTests(Contract):
    """Builds the source, and opens its splits."""

    source: Mapping[str, Any]
    """The config of a source, with data of a few samples in every split."""
    samples: ClassVar[int] = 8
    """How many samples of a split are read, from the first on."""
    start_methods: ClassVar[tuple[str, ...]] = ("fork", "spawn")
    """How worker processes are started."""

    def make(self, **options: Any) -> DataSource:
        """Build the source, with more options than the config has."""
        source: DataSource = DATA.build({**self.source, **options})
        return source

    def plugin_class(self) -> type:
        """Return the class of the source."""
        return type(self.make())

    def files(self) -> list[Path]:
        """Return the files and folders that hold the data, for a config that does not name them."""
        values = [self.source[split] for split in self.make().splits if split in self.source]
        lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
        paths = [Path(path) for paths in lists for path in paths if isinstance(path, str | Path)]
        return [path for path in paths if path.exists()]

    def _name(self) -> str:
        return type(self.make()).__name__

    def _open(self, source: DataSource, split: str) -> Any:
        try:
            return source.open(split)
        except Exception as error:
            why = error.one_line if isinstance(error, ComptError) else described(error)
            raise Violation(
                f"{type(source).__name__}.open('{split}') fails: {why}",
                "Mend what it says, or give the contract's source data that is there.",
            ) from error

    def _interfaces(self, source: DataSource) -> list[tuple[type[DataSource], type]]:
        """Return the interfaces that it must keep by what it provides."""
        return [INTERFACES[name] for name in INTERFACES if name in source.provides]
