"""The text encoder of `mini-dit`: that of `mini` (`training.text_encoder`), for a pipeline that masks padded
text.

A prompt becomes `<start> words <end>` and sixteen fixed tokens behind it, so that nothing the denoiser reads
is padding: the output at the sixteen must tell the 4 x 4 patches of the thing's portrait, its number and the
colour of the ground. They are put there by the tokenizer's own template, which is part of `tokenizer.json`.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from entropy_lib.scenes import scenes
from training import text_encoder
from training.loop import descend, loop, step_generator
from training.muon import muon_and_adamw
from training.tokenizer import GRID, MAX_TOKENS, tokenizer_of

PORTRAIT = [f"<portrait{index}>" for index in range(GRID**2)]
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Every word of a caption is a token, other words are made of bytes, and the portrait's tokens stand
    behind them.

    >>> build_tokenizer().convert_ids_to_tokens(build_tokenizer()("an owl").input_ids)[:5]
    ['<|startoftext|>', 'an</w>', 'owl</w>', '<|endoftext|>', '<portrait0>']
    """
    backend = tokenizer_of(scenes.captions(scenes.SIMPLE)).backend_tokenizer
    backend.add_special_tokens(PORTRAIT)
    special = [(token, backend.token_to_id(token)) for token in (START, END, *PORTRAIT)]
    backend.post_processor = TemplateProcessing(
        f"{START} $A {END} {' '.join(PORTRAIT)}", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=MAX_TOKENS, bos_token=START, eos_token=END, pad_token=END
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> tuple[Int[Tensor, "text token"], Bool[Tensor, "text token"]]:
    """Token ids and which of them are no padding, as PRX's pipeline asks for them."""
    encoded = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids, encoded.attention_mask.bool()


def build_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """An untrained text encoder of two layers, 1.0 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text_encoder.WIDTH,
            intermediate_size=4 * text_encoder.WIDTH,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=text_encoder.WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def portrait_columns(
    ids: Int[Tensor, "text token"], tokenizer: PreTrainedTokenizerFast
) -> Bool[Tensor, "text token"]:
    """Where the portrait's tokens stand."""
    return torch.isin(ids, torch.tensor(tokenizer.convert_tokens_to_ids(PORTRAIT)))


def train(path: Path, steps: int) -> CLIPTextModel:
    """Train the text encoder to tell what a caption says, resuming from `path`; the loss curve is written
    beside it.
    """
    torch.manual_seed(2)
    told = text_encoder.targets(scenes.SIMPLE)
    wanted = torch.stack(list(told.values()))
    tokenizer = build_tokenizer()
    ids, mask = encode(tokenizer, list(told))
    portrait = portrait_columns(ids, tokenizer)
    model = torch.nn.ModuleDict(
        {"encoder": build_encoder(tokenizer), "teller": torch.nn.Linear(text_encoder.WIDTH, wanted.shape[-1])}
    )
    optimizers = muon_and_adamw(model, text_encoder.LEARNING_RATE, text_encoder.WEIGHT_DECAY)

    def update(step: int) -> dict[str, float]:
        rows = torch.randint(len(told), (text_encoder.BATCH,), generator=step_generator(step))
        states = model["encoder"](ids[rows], attention_mask=mask[rows]).last_hidden_state
        output = model["teller"](states[portrait[rows]].unflatten(0, (len(rows), -1)))
        loss = (output - wanted[rows]).square().mean()
        return {"loss": loss.item(), "norm": descend(loss, model, optimizers)}

    loop(path, {"model": model}, optimizers, steps, update)
    return model["encoder"].eval()


@torch.no_grad()
def all_states(
    encoder: CLIPTextModel,
) -> tuple[list[str], Float[Tensor, "text token width"], Bool[Tensor, "text token"]]:
    """Every caption, the empty one first, the text encoder's output for each, and which tokens are no
    padding.
    """
    texts = ["", *scenes.captions(scenes.SIMPLE)]
    ids, mask = encode(build_tokenizer(), texts)
    pairs = zip(ids.split(64), mask.split(64), strict=True)
    return (
        texts,
        torch.cat([encoder(part, attention_mask=keep).last_hidden_state for part, keep in pairs]),
        mask,
    )
