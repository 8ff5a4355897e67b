"""The bookkeeping of denoiser calls, as a table: what a pipeline says and calls, and what each call then is. No model is run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from entropy_lib.models.networks import FAMILIES
from entropy_lib.probes.denoiser_call import DenoiserCallTracker

UNET, FLUX = FAMILIES["UNet2DConditionModel"], FAMILIES["FluxTransformer2DModel"]


def pipeline(*timesteps, **words):
    schedule = {"scheduler": SimpleNamespace(timesteps=torch.tensor(timesteps))} if timesteps else {}
    return SimpleNamespace(**schedule, **words)


def latents(batch, height=8, width=12, doubled=False):
    drawn = torch.randn(batch // 2 if doubled else batch, 4, height, width, generator=torch.Generator().manual_seed(0))
    return torch.cat([drawn, drawn]) if doubled else drawn


def follow(who, family, *calls):
    """Each call is (timestep, batch): what becomes of them."""
    tracker = DenoiserCallTracker(who, family)
    return [tracker.advance((latents(batch), torch.as_tensor(timestep)), {}) for timestep, batch in calls]


GUIDED, PERTURBED = {"do_classifier_free_guidance": True}, {"do_perturbed_attention_guidance": True}
# what calls, (timestep, batch) of each call, then (step, branches, images of a branch, first image) of each call
TABLE = {
    "guided, two steps": (pipeline(900, 400, **GUIDED), [(900, 4), (400, 4)],
                          [(0, ("uncond", "cond"), 2, 0), (1, ("uncond", "cond"), 2, 0)]),
    "guidance off": (pipeline(900, do_classifier_free_guidance=False), [(900, 3)], [(0, ("all",), 3, 0)]),
    "perturbed": (pipeline(900, **GUIDED, **PERTURBED), [(900, 6)], [(0, ("uncond", "cond", "perturbed"), 2, 0)]),
    "perturbed without guidance": (pipeline(900, **PERTURBED), [(900, 4)], [(0, ("cond", "perturbed"), 2, 0)]),
    "a batch that does not divide": (pipeline(900, **GUIDED), [(900, 3)], [(0, ("all",), 3, 0)]),
    "PNDM repeats a timestep": (pipeline(900, 600, 600, 300, **GUIDED), [(900, 2), (600, 2), (600, 2), (300, 2)],
                                [(step, ("uncond", "cond"), 1, 0) for step in (0, 1, 1, 2)]),
    "a second call that is not planned": (pipeline(900, 400, do_classifier_free_guidance=False),
                                          [(900, 2), (900, 2), (400, 2)],
                                          [(0, ("all",), 2, 0), (0, ("extra",), 2, 0), (1, ("all",), 2, 0)]),
    "two batches of one run each": (pipeline(900, 400, **GUIDED), [(900, 4), (400, 4), (900, 2), (400, 2)],
                                    [(0, ("uncond", "cond"), 2, 0), (1, ("uncond", "cond"), 2, 0),
                                     (0, ("uncond", "cond"), 1, 2), (1, ("uncond", "cond"), 1, 2)]),
    "a bare network has no branches": (nn.Identity(), [(500, 4), (250, 4)], [(0, ("all",), 4, 0), (1, ("all",), 4, 0)]),
}  # fmt: skip


@pytest.mark.parametrize(("who", "calls", "expected"), TABLE.values(), ids=TABLE.keys())
def test_calls_are_numbered(who, calls, expected):
    found = follow(who, UNET, *calls)
    assert [(call.step, call.branches, call.images, call.first_image) for call in found] == expected
    assert [call.timestep for call in found] == [timestep for timestep, _ in calls]
    assert {call.latent_size for call in found} == {(8, 12)}


def test_runs_of_one_step_are_told_apart_by_their_schedules():
    who = pipeline(900, **GUIDED)
    tracker, firsts = DenoiserCallTracker(who, UNET), []
    for _ in range(3):
        who.scheduler.timesteps = torch.tensor([900])  # as every run sets it anew
        firsts.append(tracker.advance((latents(4), torch.tensor(900)), {}).first_image)
    assert firsts == [0, 2, 4]


@pytest.mark.parametrize(("doubled", "branches"), [(True, ("uncond", "cond")), (False, ("all",))])
def test_a_pipeline_that_does_not_say_is_known_by_its_doubled_latents(doubled, branches):
    tracker = DenoiserCallTracker(pipeline(900), UNET)
    assert tracker.advance((), {"sample": latents(4, doubled=doubled), "timestep": torch.tensor(900)}).branches == branches


def test_a_step_between_the_timesteps_is_numbered_by_appearance():
    found = follow(pipeline(900, 400), UNET, (900, 1), (650, 1), (400, 1), (650, 1))
    assert [(call.step, call.timestep) for call in found] == [(0, 900), (0, 650), (1, 400), (0, 650)]


def test_flux_hands_over_a_thousandth_in_low_precision():
    tracker, places = DenoiserCallTracker(pipeline(1000.0, 752.9, 256.1), FLUX), torch.zeros(1, 24, 3)
    places[..., 1], places[..., 2] = torch.arange(4).repeat_interleave(6), torch.arange(6).repeat(4)
    given = {"hidden_states": torch.zeros(1, 24, 64), "img_ids": places}
    calls = [tracker.advance((), given | {"timestep": torch.tensor([t / 1000]).bfloat16()}) for t in (1000.0, 752.9, 256.1)]
    assert [call.step for call in calls] == [0, 1, 2]
    assert [call.timestep for call in calls] == pytest.approx([1000.0, 752.9, 256.1])
    assert {call.latent_size for call in calls} == {(8, 12)}
