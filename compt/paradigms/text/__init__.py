"""What paradigms that train text models of transformers share."""

from compt.paradigms.text.family import Family
from compt.paradigms.text.losses import IGNORED, cross_entropy, token_metrics
from compt.paradigms.text.paradigm import TextParadigm
from compt.paradigms.text.starting import TextStarter
from compt.paradigms.text.tokenizer import ByteTokenizer, LmTokenizer, open_tokenizer

__all__ = [
    "IGNORED",
    "ByteTokenizer",
    "Family",
    "LmTokenizer",
    "TextParadigm",
    "TextStarter",
    "cross_entropy",
    "open_tokenizer",
    "token_metrics",
]
