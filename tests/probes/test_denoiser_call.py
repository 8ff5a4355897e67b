"""The bookkeeping of denoiser calls, as a table: what a pipeline says and calls, and what each call then is.
No model is run.
"""

from types import SimpleNamespace

import pytest
import torch

from entropy_lib.models.runs import Caller
from entropy_lib.probes.denoiser_call import DenoiserCallTracker


def pipeline(*timesteps, **words):
    schedule = {"scheduler": SimpleNamespace(timesteps=torch.tensor(timesteps))} if timesteps else {}
    return SimpleNamespace(**schedule, **words)


def follow(who, *calls, **variables):
    """Each call is (timestep, batch): what becomes of them."""
    tracker = DenoiserCallTracker()
    return [
        tracker.advance(Caller(who, variables), batch, torch.as_tensor(timestep), (8, 12))
        for timestep, batch in calls
    ]


GUIDED, PERTURBED = {"do_classifier_free_guidance": True}, {"do_perturbed_attention_guidance": True}
BOTH, ALL = ("uncond", "cond"), ("all",)
# what calls, (timestep, batch) of each call, then (step, branches, images of a branch, first image) of each
TABLE = {
    "guided": (pipeline(900, 400, **GUIDED), [(900, 4), (400, 4)], [(0, BOTH, 2, 0), (1, BOTH, 2, 0)]),
    "guidance off": (pipeline(900, do_classifier_free_guidance=False), [(900, 3)], [(0, ALL, 3, 0)]),
    "perturbed": (pipeline(900, **GUIDED, **PERTURBED), [(900, 6)], [(0, (*BOTH, "perturbed"), 2, 0)]),
    "perturbed alone": (pipeline(900, **PERTURBED), [(900, 4)], [(0, ("cond", "perturbed"), 2, 0)]),
    "a batch that does not divide": (pipeline(900, **GUIDED), [(900, 3)], [(0, ALL, 3, 0)]),
    "PNDM repeats a timestep": (
        pipeline(900, 600, 600, 300, **GUIDED), [(900, 2), (600, 2), (600, 2), (300, 2)],
        [(step, BOTH, 1, 0) for step in (0, 1, 1, 2)]),
    "a second call that is not planned": (
        pipeline(900, 400, do_classifier_free_guidance=False), [(900, 2), (900, 2), (400, 2)],
        [(0, ALL, 2, 0), (0, ("extra",), 2, 0), (1, ALL, 2, 0)]),
    "two batches of one run each": (
        pipeline(900, 400, **GUIDED), [(900, 4), (400, 4), (900, 2), (400, 2)],
        [(0, BOTH, 2, 0), (1, BOTH, 2, 0), (0, BOTH, 1, 2), (1, BOTH, 1, 2)]),
    "a bare network, one batch after the other": (
        None, [(500, 4), (250, 4), (500, 2), (250, 2)],
        [(0, ALL, 4, 0), (1, ALL, 4, 0), (0, ALL, 2, 4), (1, ALL, 2, 4)]),
    "a bare network, two batches step by step": (
        None, [(500, 4), (500, 2), (250, 4), (250, 2)],
        [(0, ALL, 4, 0), (0, ALL, 2, 4), (1, ALL, 4, 0), (1, ALL, 2, 4)]),
}  # fmt: skip


@pytest.mark.parametrize(("who", "calls", "expected"), TABLE.values(), ids=TABLE.keys())
def test_calls_are_numbered(who, calls, expected):
    found = follow(who, *calls)
    assert [(call.step, call.branches, call.images, call.first_image) for call in found] == expected
    assert [call.timestep for call in found] == [timestep for timestep, _ in calls]


def test_runs_of_one_step_are_told_apart_by_their_schedules():
    who, tracker, firsts = pipeline(900, **GUIDED), DenoiserCallTracker(), []
    for _ in range(3):
        who.scheduler.timesteps = torch.tensor([900])  # as every run sets it anew
        firsts.append(tracker.advance(Caller(who), 4, torch.tensor(900), (8, 12)).first_image)
    assert firsts == [0, 2, 4]


# what the pipeline says, its images, rows of the batch, then branches and images of each
WORDS = {
    "nothing, twice as many rows": ({}, 2, 4, ("uncond", "cond"), 2),
    "nothing, two equal images": ({}, 2, 2, ("all",), 2),
    "guided": (GUIDED, 2, 4, ("uncond", "cond"), 2),
    "three branches (InstructPix2Pix)": (GUIDED, 2, 6, ("all",) * 3, 2),
    "not guided, and is (Panorama)": ({"do_classifier_free_guidance": False}, 1, 2, ("all",) * 2, 1),
    "guided, one branch a call": (GUIDED, 2, 2, ("all",), 2),
    "guided and perturbed": (GUIDED | PERTURBED, 2, 6, ("uncond", "cond", "perturbed"), 2),
}


@pytest.mark.parametrize(("words", "latents", "rows", "branches", "images"), WORDS.values(), ids=WORDS)
def test_branches_are_what_the_pipeline_s_words_and_latents_account_for(
    words, latents, rows, branches, images
):
    (found,) = follow(pipeline(900, **words), (900, rows), latents=torch.zeros(latents, 4, 8, 12))
    assert (found.branches, found.images) == (branches, images)


def test_a_pipeline_s_own_variable_says_whether_it_guides():
    (found,) = follow(pipeline(900), (900, 4), do_classifier_free_guidance=True)
    assert found.branches == ("uncond", "cond")


def test_a_step_between_the_timesteps_is_numbered_by_appearance():
    found = follow(pipeline(900, 400), (900, 1), (650, 1), (400, 1), (650, 1))
    assert [(call.step, call.timestep) for call in found] == [(0, 900), (0, 650), (1, 400), (0, 650)]


def test_flux_hands_over_a_thousandth_in_low_precision():
    times = (1000.0, 752.9, 256.1)
    calls = follow(pipeline(*times), *[(torch.tensor([t / 1000]).bfloat16(), 1) for t in times])
    assert [call.step for call in calls] == [0, 1, 2]
    assert [call.timestep for call in calls] == pytest.approx(list(times))


def test_continuous_timesteps_are_found_by_the_pipeline_s_own_variable():
    who = pipeline(1.1, 0.2, -1.6)
    tracker = DenoiserCallTracker()
    steps = [tracker.advance(Caller(who, {"t": t}), 1, t * 7, (8, 12)).step for t in who.scheduler.timesteps]
    assert steps == [0, 1, 2]


def test_branches_of_a_modular_pipeline_are_those_of_its_guider():
    names, branches = ("pred_cond", "pred_uncond", "pred_cond_skip"), []
    tracker, who = DenoiserCallTracker(), pipeline(900)
    for name in names:
        state = SimpleNamespace(**{"__guidance_identifier__": name})
        variables = {"latents": torch.zeros(2, 4, 8, 12), "guider_state_batch": state}
        branches.append(tracker.advance(Caller(who, variables), 2, torch.tensor(900), (8, 12)).branches)
    assert branches == [("cond",), ("uncond",), ("perturbed",)]
