"""The text side of the embedded model: a CLIP tokenizer with its own vocabulary and a two-layer CLIP text encoder."""

import json
import tempfile
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from entropy_lib.mini import dataset

MAX_TOKENS = 16  # the longest caption has 11
WIDTH = 192
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]


def captions(table: pd.DataFrame) -> list[str]:
    """Every caption of the training data, with its design."""
    return [dataset.caption(name, design) for name, design in zip(table.name, table.design, strict=True)]


def build_tokenizer(table: pd.DataFrame) -> CLIPTokenizer:
    """Byte-pair encoding in which every word of the captions is one token and any other text is made of bytes."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, initial_alphabet=alphabet, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(captions(table), trainer)
    state = json.loads(tokenizer.to_str())["model"]
    vocabulary = complete_vocabulary(state["vocab"], sorted(alphabet))
    merges = [tuple(merge) for merge in state["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def complete_vocabulary(vocabulary: dict[str, int], alphabet: list[str]) -> dict[str, int]:
    """Add each byte as a word of its own where training saw none, so that no text is unknown."""
    missing = [byte + "</w>" for byte in alphabet if byte + "</w>" not in vocabulary]
    return vocabulary | {token: len(vocabulary) + index for index, token in enumerate(missing)}


def build_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer: CLIPTokenizer, texts: list[str]):
    """Token ids `[n, MAX_TOKENS]`, padded as the pipeline pads them."""
    return tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids


def round_trip(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The tokenizer as a user will load it: saved and read again."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(Path(folder))
