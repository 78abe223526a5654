"""What a source of data says of itself."""

from __future__ import annotations

import inspect

from compt.errors import ConfigError
from compt.interfaces import DataSource
from compt.testing._contract import require_signatures
from compt.testing._samples import is_name
from compt.testing._shared import Violation, described, must_work, require, some
from compt.testing.data.base import SourceTests

DECLARED = 7
"""A size of the training split that the contract makes up."""


class OptionTests(SourceTests):
    """Tests of what a source says of itself, and of the options that it takes."""

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        source = self.make()
        bases: list[type] = [interface for interface, _ in self._interfaces(source)]
        for base in (DataSource, *bases):
            require_signatures(source, base)

    def test_says_what_it_provides(self) -> None:
        """``provides`` names what samples hold, and the source keeps the interface for it."""
        source, name = self.make(), self._name()
        provides = source.provides
        require(
            isinstance(provides, frozenset) and provides and all(map(is_name, provides)),
            f"{name}.provides is {provides!r}.",
            "Name what samples hold: provides = frozenset({'image', 'captions'}), in the class.",
        )
        require(
            provides <= type(source).provides,
            f"{name} provides {some(provides)}, its class {some(type(source).provides)}.",
            "Name all that it can give in the class; where options leave something out, set "
            "self.provides in __init__().",
        )
        for interface, returned in self._interfaces(source):
            require(
                isinstance(source, interface),
                f"{name} provides {some(provides)} and is no {interface.__name__}.",
                f"Derive it from compt.{interface.__name__}.",
            )
            for split in source.splits:
                opened = self._open(source, split)
                require(
                    isinstance(opened, returned),
                    f"{name}.open('{split}') returns {type(opened).__name__}.",
                    f"Return a compt.{returned.__name__}.",
                )

    def test_splits_have_names_of_their_own(self) -> None:
        """``splits`` are different names, which metrics can be called after."""
        splits = self.make().splits
        names = isinstance(splits, tuple) and splits and all(map(is_name, splits))
        require(
            names and len(set(splits)) == len(splits) and not any("/" in s for s in splits),
            f"{self._name()}.splits is {splits!r}.",
            "Make it a tuple of different names without '/': metrics are called 'split/metric'.",
        )

    def test_unknown_options_are_refused(self) -> None:
        """What is no option is a ConfigError, and a misspelt one names the right one."""
        do = (
            "Name every option in __init__(); where other keys are splits, derive from "
            "compt.data.FileSource, which tells them apart."
        )
        options = inspect.signature(type(self.make())).parameters.values()
        names = [p.name for p in options if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        right = max(names, key=len, default="num_samples")
        for wrong, value in (("no_such_option", object()), (f"{right}x", "misspelt")):
            try:
                self.make(**{wrong: value})
            except ConfigError as error:
                message = str(error)
            except Exception as error:
                raise Violation(
                    f"{self._name()} with the option '{wrong}' raises {described(error)}", do
                ) from error
            else:
                raise Violation(f"{self._name()} takes '{wrong}', which is no option.", do)
        require(
            f"'{right}'" in message,
            f"{self._name()} refuses '{right}x' without naming '{right}': {message!r}.",
            do,
        )

    def test_an_unknown_split_is_refused(self) -> None:
        """``open`` raises a ConfigError that names the splits there are."""
        source, do = self.make(), "Begin open() with self.check_split(split)."
        try:
            source.open("no_such_split")
        except ConfigError as error:
            missing = [split for split in source.splits if split not in str(error)]
        except Exception as error:
            raise Violation(
                f"{self._name()}.open('no_such_split') raises {described(error)}", do
            ) from error
        else:
            raise Violation(f"{self._name()}.open('no_such_split') opens something.", do)
        require(
            not missing,
            f"The error of {self._name()} for an unknown split does not name {some(missing)}.",
            do,
        )

    def test_its_size_can_be_declared(self) -> None:
        """``num_samples`` in the config is the size of 'train', for plans without the data."""
        do = (
            "Take num_samples=None in __init__() and hand it to super().__init__(num_samples="
            "num_samples); override num_samples() only to add what is known without it."
        )
        with must_work(f"{self._name()} does not take num_samples", do):
            source = self.make(num_samples=DECLARED)
        number = source.num_samples("train")
        require(
            number == DECLARED,
            f"With num_samples={DECLARED} {self._name()}.num_samples('train') is {number!r}.",
            do,
        )
