"""Text for language models, tokenised once and given out in blocks.

``dict(type='stdlib')`` needs no download; the other sources name a file, folder, pattern or list of
these for each split, ``dict(type='jsonl', train='corpus/*.jsonl.gz', val='val.jsonl')``, beside the
options of the source's class.

Every document is followed by the tokenizer's end mark; all documents of a split, in the order of
the source, are one sequence of tokens, which is cut into blocks.
"""

from compt.data.text._tokenise import Tokenizer
from compt.data.text.blocks import NEEDS, open_blocks, open_tokens
from compt.data.text.tokens import MixedBlocks, TokenBlocks

__all__ = ["NEEDS", "MixedBlocks", "TokenBlocks", "Tokenizer", "open_blocks", "open_tokens"]
