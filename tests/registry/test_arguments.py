"""Arguments of plug-ins, held against the annotations of their constructors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from compt.config import load_config
from compt.errors import ConfigError
from compt.registry import DATA, GROWERS, PARADIGMS, TRANSFERERS, Range
from compt.registry.arguments import in_own_types, shown, value_faults
from tests.config.conftest import faults

Share = Annotated[float, Range(minimum=0, maximum=1)]


class Plugin:
    """A constructor with every kind of annotation that is checked."""

    def __init__(
        self,
        *,
        steps: int = 3,
        share: Share = 0.5,
        limit: Annotated[float, Range(positive=True)] | None = None,
        mode: Literal["a", "b"] = "a",
        flag: bool = False,
        name: str = "",
        path: str | Path | None = None,
        sizes: Sequence[Annotated[int, Range(minimum=1)]] = (),
        pair: tuple[float, float] = (0.0, 1.0),
        options: Mapping[str, Any] | None = None,
        teacher: Annotated[Mapping[str, Any], GROWERS] | None = None,
        several: Sequence[Annotated[Mapping[str, Any], TRANSFERERS]] = (),
        wrong: int = None,  # type: ignore[assignment]  # noqa: RUF013
        function: Callable[[], int] | None = None,
        unannotated=None,
        **others: Any,
    ) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (dict(steps=1.5), "steps: 1.5 is not a whole number."),
        (dict(steps="3"), "steps: '3' is not a whole number."),
        (dict(steps=True), "steps: True is not a whole number."),
        (dict(steps=None), "steps: None is not a whole number."),
        (dict(share=-0.1), "share: -0.1 is not a number from 0 to 1."),
        (dict(share=float("nan")), "share: nan is not a number from 0 to 1."),
        (dict(limit=0), "limit: 0 is not a positive number."),
        (dict(mode="c"), "mode: 'c' is none of 'a', 'b'."),
        (dict(flag="yes"), "flag: 'yes' is not True or False."),
        (dict(name=3), "name: 3 is not a string."),
        (dict(path=3), "path: 3 is not a string or a path."),
        (dict(sizes="12"), "sizes: '12' is not a list."),
        (dict(sizes=[1, 0]), "sizes: [1, 0] has 0, which is not a whole number of at least 1."),
        (dict(pair=[1.0]), "pair: [1.0] is not a list of 2."),
        (dict(options=[1]), "options: [1] is not a dict."),
        (dict(teacher=dict(type="clone", noise=-5)), "teacher.noise: -5 is not a number of at"),
        (dict(teacher=dict(type="clon")), "teacher: No grower named 'clon'. Did you mean 'clone'"),
        (
            dict(several=[dict(type="none"), dict(type="cosine", weight="x")]),
            "several.1.weight: 'x' is not a number.",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(arguments, fault):
    (noted,) = value_faults(Plugin, arguments)
    assert str(noted).startswith(fault)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(steps=1e6),
        dict(share=1),
        dict(limit=None),
        dict(path=Path("a")),
        dict(sizes=(1, 2)),
        dict(pair=[0, 2]),
        dict(wrong=None),
        dict(function="whatever"),
        dict(unannotated=object()),
        dict(train="files of another split"),
        dict(teacher=dict(type="clone", noise=0.5)),
    ],
)
def test_a_value_that_fits_or_that_nothing_is_said_of(arguments):
    assert value_faults(Plugin, arguments) == []


def test_whole_numbers_come_as_integers():
    arguments = in_own_types(Plugin, dict(steps=100.0, share=1.0, train=2.0))
    assert [type(value) for value in arguments.values()] == [int, float, float]


def test_annotations_that_only_type_checkers_know_are_not_checked():
    def make(*, size: Unknown, steps: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert value_faults(make, dict(size=1, steps="x")) == []


def test_long_values_are_cut():
    assert len(shown("x" * 1000)) == 120


@pytest.mark.parametrize(
    ("registry", "arguments", "fault"),
    [
        (GROWERS, dict(type="lossless", noise=-1), "noise: -1"),
        (GROWERS, dict(type="lossless", fill=3), "fill: 3"),
        (GROWERS, dict(type="compose", width="clone", depth=3), "depth: 3"),
        (TRANSFERERS, dict(type="feature_mse", limit=-1), "limit: -1"),
        (TRANSFERERS, dict(type="feature_mse", features="image"), "features: 'image'"),
        (TRANSFERERS, dict(type="logit_kl", top_k=0), "top_k: 0"),
        (DATA, dict(type="folder", train="a", max_broken=7), "max_broken: 7"),
        (DATA, dict(type="icons", image_size=1.5), "image_size: 1.5"),
        (DATA, dict(type="icons", samples=0), "samples: 0"),
        (PARADIGMS, dict(type="clip", augment=0), "augment: 0"),
        (PARADIGMS, dict(type="clip", templates="a {}"), "templates: 'a {}'"),
        (PARADIGMS, dict(type="clip", std=[0, 1, 1]), "std: [0, 1, 1]"),
        (PARADIGMS, dict(type="clip", data=dict(type="icons", samples=-1)), "data.samples: -1"),
        (PARADIGMS, dict(type="causal_lm", context=0), "context: 0"),
        (PARADIGMS, dict(type="causal_lm", eval_blocks=-3), "eval_blocks: -3"),
    ],
)
def test_the_arguments_of_built_in_plugins(registry, arguments, fault):
    (noted,) = registry.argument_faults(arguments)
    assert str(noted).startswith(fault)
    with pytest.raises(ConfigError, match=r"The .* '.*': "):
        registry.build(arguments)


def test_a_config_names_the_path_of_a_value_and_all_of_them_at_once(toy):
    toy |= dict(grower=dict(type="clone", noise=-5), paradigm=dict(type="toy", samples="x"))
    toy["chain"][1]["transfer"] = dict(type="feature_mse", weight="x", until=2)
    noted = faults(toy)
    assert [fault.partition(" ")[0] for fault in noted] == [
        "grower.noise:",
        "chain.1.transfer.weight:",
        "paradigm.samples:",
    ]
    toy["chain"][1]["transfer"] = dict(type="feature_mse", until=2)  # the constructor judges it
    assert any(fault.startswith("chain.1.transfer: ") for fault in faults(toy))


def test_a_constructor_that_raises_is_a_fault_of_the_config(toy, install):
    @GROWERS.register_module(name="raises")
    class Raises(GROWERS.get("lossless")):
        def __init__(self) -> None:
            raise ZeroDivisionError("of its own")

    (fault,) = faults({**toy, "grower": dict(type="raises")})
    assert fault.startswith("grower: ZeroDivisionError: of its own (")
    assert load_config(toy)
