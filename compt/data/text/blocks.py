"""Opens a split of text or of tokens as blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.data.mixture import MixtureSource
from compt.data.opening import build_source
from compt.data.text._ids import check_ids
from compt.data.text._tokenise import Tokenizer, tokenised
from compt.data.text.tokens import MixedBlocks, TokenBlocks
from compt.errors import ConfigError, DataError, located
from compt.interfaces import DataSource, Text, Tokens

Blocks = TokenBlocks | MixedBlocks

NEEDS = (("text",), ("tokens",))
"""What a source must provide to be read in blocks, one of them."""


def open_tokens(cfg: Mapping[str, Any], split: str, tokenizer: Tokenizer, context: int) -> Blocks:
    """Open one split of a data config as blocks of tokens.

    Args:
        cfg: ``dict(type=..., ...)``, of a source of text or of tokens.
        split: 'train' or one of :func:`compt.data.splits`.
        tokenizer: what turns text into numbers.
        context: how many tokens of a block are predicted.

    Raises:
        ConfigError: unknown type, split or option, or one that cannot be; ids that the tokenizer
            should not give.
        DataError: the data is missing, damaged, empty or shorter than a block, or the cache cannot
            be written.
    """
    source = build_source(cfg, *NEEDS)
    with located(f"data of type '{cfg['type']}'"):
        return open_blocks(source, split, tokenizer, context)


def open_blocks(source: DataSource, split: str, tokenizer: Tokenizer, context: int) -> Blocks:
    """Open one split of a source, tokenised now if the cache does not hold it undamaged.

    Several processes may call this at once: one tokenises, the others wait.

    Raises:
        ConfigError: as for :func:`open_tokens`.
        DataError: as for :func:`open_tokens`.
    """
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise ConfigError(f"context={context!r} is not a number of tokens from 1 on.", where="data")
    if isinstance(source, MixtureSource):
        parts = [_blocks(own, split, tokenizer, context) for own in source.of_split(split)]
        return MixedBlocks(parts, source.weights if split == "train" else None)
    return _blocks(source, split, tokenizer, context)


def _blocks(source: DataSource, split: str, tokenizer: Tokenizer, context: int) -> TokenBlocks:
    opened = source.open(split)
    if "tokens" in source.provides:
        tokens: Tokens = opened
        check_ids(tokens, tokenizer.size, source.cache_dir)
        where = ", ".join(str(span.file) for span in tokens.spans[:1])
    else:
        text: Text = opened
        tokens, where = tokenised(text, tokenizer, source.cache_dir), text.where
    if tokens.num_tokens <= context:
        raise DataError(
            f"The split '{split}' has {tokens.num_tokens} tokens; a block takes {context + 1}.",
            where=where,
            do="Give it more text, or the models a shorter context.",
        )
    blocks = TokenBlocks(tokens, context, max_broken=source.max_broken, num_ids=tokenizer.size)
    blocks.check()
    return blocks
