"""Text for language models: read from many kinds of files, tokenised once, given out in blocks.

``dict(type='stdlib')`` needs no download; the others name a file, folder, pattern or list of these
for each split, ``dict(type='jsonl', train='corpus/*.jsonl.gz', val='val.jsonl')``, beside the
options of the source's class.

Every document is followed by the tokenizer's end mark; all documents of a split, in the order of
the files, are one sequence of tokens, which is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.data._options import files_of, sort_options
from compt.data.text._tokenise import Tokenizer, tokenised
from compt.data.text.files import Source, TextFiles
from compt.data.text.rows import JsonLines, Parquet, SavedDatasets
from compt.data.text.stdlib import Stdlib
from compt.data.text.token_files import TokenFiles
from compt.data.text.tokens import TokenBlocks
from compt.errors import ConfigError, DataError

__all__ = [
    "SOURCES",
    "JsonLines",
    "Parquet",
    "SavedDatasets",
    "Stdlib",
    "TextFiles",
    "TokenBlocks",
    "TokenFiles",
    "Tokenizer",
    "open_tokens",
    "text_splits",
]

COMMON = ("num_samples", "cache_dir")
"""Options of every source."""
SOURCES: dict[str, type[Source] | type[TokenFiles]] = {
    "stdlib": Stdlib,
    "text": TextFiles,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "datasets": SavedDatasets,
    "tokens": TokenFiles,
}


def text_splits(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The held-out splits of a data config ``dict(type=..., ...)``, in its order.

    Raises:
        ConfigError: unknown type or option.
    """
    return tuple(split for split in sort_options(cfg, SOURCES, COMMON)[1] if split != "train")


def open_tokens(
    cfg: Mapping[str, Any], split: str, tokenizer: Tokenizer, context: int
) -> TokenBlocks:
    """Open one split, tokenised now if the cache does not hold it undamaged.

    Several processes may call this at once: one tokenises, the others wait.

    Args:
        cfg: ``dict(type=..., ...)``; ``cache_dir`` moves the cache, ``num_samples`` is for plans
            and not read here.
        split: 'train' or one of :func:`text_splits`.
        tokenizer: what turns text into numbers.
        context: how many tokens of a block are predicted.

    Raises:
        ConfigError: unknown type, split or option, or one that cannot be; ids that the tokenizer
            should not give.
        DataError: the data is missing, damaged, empty or shorter than a block, or the cache cannot
            be written.
    """
    kind, files, settings, common = sort_options(cfg, SOURCES, COMMON)
    paths = files_of(split, kind, files)
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise ConfigError(f"context={context!r} is not a number of tokens from 1 on.", where="data")
    source = SOURCES[kind](paths, split, **settings)  # type: ignore[call-arg]
    cache_dir = common.get("cache_dir")
    if isinstance(source, TokenFiles):
        tokens = source.checked(tokenizer.size, cache_dir)
    else:
        tokens = tokenised(source, tokenizer, cache_dir)
    if tokens.num_tokens <= context:
        raise DataError(
            f"The split '{split}' has {tokens.num_tokens} tokens; a block takes {context + 1}.",
            where=f"data of type '{kind}': {source.where}",
            do="Give it more text, or the models a shorter context.",
        )
    return TokenBlocks(tokens, context)
