"""Give new blocks their first values, for growers that mean to keep the function."""

from __future__ import annotations

from torch import Tensor

from compt.growth.operators import ParamPair, writes_stream, writing_nothing


def adding_nothing(value: Tensor, other: Tensor, pair: ParamPair) -> Tensor:
    """Return a value with which a new block passes its input on, and yet learns.

    Args:
        value: of the parameter, where it is not what has to be zero.
        other: another value that it may have, of the same shape.
        pair: the parameter.
    """
    if writes_stream(pair.param, pair.target):
        return writing_nothing(value, pair.param)
    if pair.param.scaled_by and not value.any():
        return other  # behind a factor of 0, zeros would never learn
    return value
