"""The interface of layouts, which name the axes of a module's tensors."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compt.interfaces.architecture import Role, Unit
from compt.interfaces.paradigm import Outputs
from compt.interfaces.plugin import Plugin, renamed_method


class Layout(Plugin, ABC):
    """Say, for one module class, what each of its parameters' axes are.

    A layout is registered under the path of the module class it describes, such as
    ``timm.models.vision_transformer.VisionTransformer``.
    """

    renamed_methods = {"same": "axis_aliases"}
    patterns: Mapping[str, str] = {}
    """Patterns by parameter name, in the notation of :mod:`compt.growth.patterns`."""
    parts: tuple[str, ...] = ()
    """Child modules that their own layouts describe.

    Their axes are prefixed with the child's name.
    """
    roles: Mapping[str, Role | Unit] = {}
    """How axes may grow, where their name does not already say it.

    ``"pixels"`` (of a patch) and ``"places"`` (of an image's grid, or of offsets in a window) are
    fixed too, but other patch and image sizes may change them; ``"channels"`` (of a head) may grow
    where :meth:`score_scales` tells the queries, and ``"rotary"`` says why they may not.
    """
    chosen: Mapping[str, str] = {}
    """The size, as :meth:`sizes` names it, that says how many units of an axis a token chooses.

    For example ``{"experts": "top_k"}``. Of ``experts`` it is ``chosen_experts`` by name.
    """
    whole: frozenset[str] = frozenset()
    """Axes that keep the function at whole multiples only, as the layout alone can tell.

    They are those whose units all pass through the same weights, as the channels of a token mixer
    do, and streams that are read without a norm, or through one without parameters: what is there
    sees the pads that other widths need.
    """

    dense: Mapping[str, tuple[str, ...]] = {}
    """For tensors of experts, the tensors of a dense model that an expert holds, concatenated.

    All are named as in ``patterns``. A router holds none: ``()``.
    """

    def patterns_of(self, module: nn.Module) -> Mapping[str, str]:
        """Return the patterns that hold for this module, by default all of ``patterns``.

        For classes whose options change what a tensor's axes are, not only which tensors there are.
        """
        return self.patterns

    def multipliers(self, module: nn.Module) -> Mapping[str, float]:
        """Return constants that the module multiplies parameters by, such as ``width ** 0.5``.

        They are named as in ``patterns``. Growing makes up for a constant that changes with the
        size. Only those that may differ between members need be named.
        """
        return {}

    def score_scales(self, module: nn.Module) -> Mapping[str, float]:
        """Return by what attention multiplies the products of queries and keys.

        It is said of what makes the queries, named as in ``patterns``, as ``{"q_proj.*": 0.125}``.
        Where a tensor makes several, the queries are the first. Growing the channels of heads makes
        up for it; where positions rotate them it cannot, and there is nothing to say.
        """
        return {}

    def periods(self, module: nn.Module) -> Mapping[str, int]:
        """Return after how many blocks their kinds come again, by stack, where it is not 1.

        Where every second layer sees a sliding window alone, it is ``{"model.layers": 2}``. What
        fills a block is then of the same kind.
        """
        return {}

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Return axes that are one and the same in this module, as ``{name: name to use}``.

        For example ``{"visual.feature": "feature"}``.
        """
        return {}

    same = renamed_method("same", axis_aliases)

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """Return the sizes that shapes alone cannot tell, such as the number of heads."""
        return {}

    def options(self, module: nn.Module) -> Mapping[str, Any]:
        """Return the options that the module was built with, as its own config names them.

        Only those that say what it computes; sizes may be among them. Where two models cannot grow
        into each other exactly, or not at all, compt names those that differ. Of a module that
        keeps no config there is nothing to return.
        """
        return {}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs | None:
        """Run the module on small random input, to measure what growth changed.

        The input may depend only on the generator and on fixed sizes. A method that names a
        further argument ``common`` gets the sizes that the two models have in common, by axis:
        where the vocabulary is extended, input and outputs are to be those of the smaller.

        Returns:
            The outputs by name, or None where this module cannot be probed.
        """
        return None
