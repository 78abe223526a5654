"""Find the bytes of text that each token of a tokenizer stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from compt.errors import ConfigError

BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}
"""The byte that a character of byte-level BPE stands for."""
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte as SentencePiece writes it."""
SPACE = "▁"
"""A space as SentencePiece writes it."""


def token_bytes(tokenizer: PreTrainedTokenizerBase, where: str) -> list[bytes]:
    """Return the bytes of each id, none for special tokens and for ids that are not used.

    The bytes of a text's tokens in a row are its bytes; a token may end within a character.

    Args:
        tokenizer: of transformers.
        where: who has it, for messages.

    Raises:
        ConfigError: its tokens are no pieces of text: it is not one of the library tokenizers, or
            leaves out spaces or letters, as WordPiece does.
    """
    read = _reader(tokenizer, where)
    vocabulary = tokenizer.get_vocab()
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        table[number] = read(token)
    for number, added in tokenizer.added_tokens_decoder.items():
        table[number] = b"" if added.special else added.content.encode()
    for number in tokenizer.all_special_ids:
        table[number] = b""
    return table


def _reader(tokenizer: PreTrainedTokenizerBase, where: str) -> Callable[[str], bytes]:
    """Return what reads a token of the vocabulary as bytes, by how the tokenizer decodes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [] if backend is None else list(_parts(json.loads(backend.to_str())["decoder"]))
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level
    is_space = any(
        part["type"] == "Replace" and part["pattern"].get("String") == SPACE for part in parts
    )
    if is_space or "Metaspace" in kinds:
        return _byte_token if "ByteFallback" in kinds else _spaced
    described = (
        "no fast one" if backend is None else f"decoded by {', '.join(sorted(kinds)) or '-'}"
    )
    raise ConfigError(
        f"The tokenizer of {where} is {described}: what text its tokens are is not known, so none "
        "with another tokenizer can learn from or teach it.",
        where="paradigm.tokenizers",
        do="Take byte-level BPE (GPT-2, Llama 3, Qwen), SentencePiece's in the form of the library "
        "tokenizers (Llama 2, Gemma), or bytes.",
    )


def _parts(decoder: Any) -> Iterator[Any]:
    """Yield the parts of a decoder's description, none of none."""
    if decoder is None:
        return
    yield from decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _byte_level(token: str) -> bytes:
    if all(character in BYTE_OF for character in token):
        return bytes(BYTE_OF[character] for character in token)
    return token.encode()


def _spaced(token: str) -> bytes:
    return token.replace(SPACE, " ").encode()


def _byte_token(token: str) -> bytes:
    match = BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else _spaced(token)
