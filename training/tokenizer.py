"""The tokenizer of the embedded models: a CLIP tokenizer with a vocabulary of its own.

Every word of a caption is one token; any other text is made of bytes, so no prompt is refused.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from jaxtyping import Int
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import CLIPTokenizer

GRID = 4  # a thing's portrait is told in GRID x GRID patches, one by each of the last positions
MAX_TOKENS = 16 + GRID**2  # the longest caption has 11
WORD_END = "</w>"
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]


def tokenizer_of(texts: Iterable[str]) -> CLIPTokenizer:
    """Byte-pair encoding in which every word of these texts is one token and any other text is made of bytes.

    Learnt here and not by the tokenizers library, whose trainer breaks ties at random: a vocabulary must be
    the same in every run, or a resumed training would find other words behind its embeddings.
    """
    split = re.compile(r"[^\W\d_]+|\d|[^\w\s]+")
    words = {
        word: (*word[:-1], word[-1] + WORD_END) for text in texts for word in split.findall(text.lower())
    }
    merges = learn_merges(words)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *SPECIAL,
        *alphabet,
        *(letter + WORD_END for letter in alphabet),
        *("".join(pair) for pair in merges),
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def learn_merges(words: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Merge the most frequent pair of symbols until every word is one; the first in alphabetical order where
    they tie.
    """
    merges = []
    while pairs := Counter(pair for symbols in words.values() for pair in pairwise(symbols)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _merged(symbols, best) for word, symbols in words.items()}
    return merges


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return tuple(result)


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> Int[Tensor, "n token"]:
    """Token ids `[n, MAX_TOKENS]`, padded as the pipeline pads them."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def round_trip(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The tokenizer as a user will load it: saved and read again."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(Path(folder))
