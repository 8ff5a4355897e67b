"""What runs elsewhere: a configuration a line as JSON in, what it costs as JSON out. Started by `measurement`.

Each configuration has a fresh process. Loading the libraries takes longer than most measurements, so one process loads them,
computes nothing itself, and is copied (forked) for each.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable
from typing import TextIO

import torch
from diffusers import DiffusionPipeline

from entropy_lib.baselines.methods import draw_by
from entropy_lib.costs.configuration import TEXT_TOKENS, Configuration
from entropy_lib.costs.instruments import AttentionTimer, peak_memory, seconds
from entropy_lib.models.catalogue import load
from entropy_lib.models.layers import denoiser
from entropy_lib.models.networks import family
from entropy_lib.scaling.patch import scaled


def cost(configuration: Configuration, repeats: int) -> dict:
    """Warm up twice, the second time for the memory; then time it; then once more with a clock on attention.

    Returns:
        `seconds`, one an entry; `allocated, reserved, before` in megabytes; `attention`: its share of the denoiser's time, NaN for
        pictures; `backends`, `device` and `threads` in words.
    """
    c = configuration
    pipe = load(c.model, device=c.device, dtype=c.dtype, random_weights=c.random_weights)
    work, device = _work(c, pipe), denoiser(pipe).device
    work()
    facts = peak_memory(work, device)
    runs = [seconds(work, device) for _ in range(repeats)]
    share, backends = _attention(work, device, repeats if c.part == "denoiser" else min(repeats, 1))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts |= {"seconds": runs, "attention": share if c.part == "denoiser" else float("nan"), "backends": backends}
    return facts | {"device": name, "threads": torch.get_num_threads()}


def _attention(work: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, list[str]]:
    """The median share of attention in the time of a piece of work, and the kernels that torch chose for it."""
    shares, backends = [float("nan")] * (not repeats), []
    for _ in range(repeats):
        with AttentionTimer(device) as timer:
            whole = seconds(work, device)
        shares.append(timer.seconds / whole)
        backends = timer.backends
    return statistics.median(shares), backends


def _work(c: Configuration, pipe: DiffusionPipeline) -> Callable[[], object]:
    """What is measured, to be called again and again."""
    if c.part == "picture":
        prompts, seeds = ["a penguin on a blue background"] * c.images, range(c.images)
        options = {"steps": c.steps, "guidance": c.guidance, "batch": c.images}
        return lambda: draw_by(c.method, pipe, prompts, seeds, c.height, c.width, **options)
    network, rows = denoiser(pipe), c.height // pipe.vae_scale_factor
    known = family(network)
    inputs = known.inputs(dict(network.config), rows, c.width // pipe.vae_scale_factor, known.text_tokens)
    if not known.text_tokens and "encoder_hidden_states" in inputs:  # one token, where shapes are all that counts
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].expand(-1, TEXT_TOKENS, -1)
    inputs = {key: _as_given(value, c.images, network) for key, value in inputs.items()}

    def call() -> None:
        with torch.no_grad(), scaled(network, c.method):
            network(**inputs)

    return call


def _as_given(value: object, images: int, network: torch.nn.Module) -> object:
    """An input of the network as a pipeline would give it: on its device, of its type, a batch of it, noise in place of zeros."""
    if isinstance(value, dict):
        return {key: _as_given(each, images, network) for key, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if value.dim() < 2 or not value.is_floating_point():
        return value.to(network.device)
    batch = value.expand(images, *value.shape[1:]) if value.shape[0] == 1 else value
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    return (noise if value.shape[0] == 1 else value).to(network.device, network.dtype)


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer each line: with the cost, with `error`, or with `killed` where the process did not come back."""
    for line in questions:
        answers.flush()
        child = os.fork()
        if not child:
            _answer(json.loads(line), answers)
        _, status = os.waitpid(child, 0)
        if status:
            answers.write(json.dumps({"killed": status}) + "\n")
            answers.flush()


def _answer(asked: dict, answers: TextIO) -> None:
    """In the copy: measure, answer, and end, without what an interpreter does at its end."""
    try:
        torch.set_num_threads(asked["threads"])
        found = cost(Configuration(**asked["configuration"]), asked["repeats"])
    except Exception as error:  # whatever it is, the process that asked says it
        found = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(found) + "\n")
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    serve(sys.stdin, own)
