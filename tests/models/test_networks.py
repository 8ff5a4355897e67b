"""Every kind of network through patch, probe and notebooks: tiny pipelines with untrained weights, called as
the big ones are.
"""

import pytest
import torch
from torch.nn import functional

import entropy_lib as el
from entropy_lib.cli.profiles import profile_parameters
from entropy_lib.files import ROOT
from entropy_lib.models.architectures import TINY, build
from entropy_lib.models.layers import denoiser

pytestmark = pytest.mark.slow

NATIVE = dict.fromkeys(TINY, (64, 64)) | {"flux": (1024, 1024)}
JOINT = {"sd3": (77 + 256, 16), "flux": (512, 4096)}  # text and native image tokens


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
    """Name and pipeline of one family after the other."""
    return request.param, build(request.param, tiny=True)


def draw(pipe, height, width, rule="unscaled", guidance=3.0, prompts=("a zebra", "a cup of tea")):
    options = {"steps": 2, "guidance": guidance, "method": rule}
    return el.generate(pipe, prompts, range(len(prompts)), (height, width), **options)


def expected_factors(table, rule):
    return [el.rule(rule).factor(n, t) for n, t in zip(table.tokens, table.training_tokens, strict=True)]


def test_the_probe_measures_the_factor_that_the_patch_says_and_the_pipeline_is_restored(tiny):
    _, pipe = tiny
    before = draw(pipe, 64, 96)
    with el.EntropyProbe(pipe) as probe:
        assert (draw(pipe, 64, 96, "power(4)") != before).any()
    table = probe.table()
    assert (abs(table.factor - 1) > 0.005).all(), "a factor that changes nothing proves nothing"
    assert table.factor.to_numpy() == pytest.approx(expected_factors(table, "power(4)"), rel=1e-5)
    assert set(table.layer) == set(el.training_tokens(pipe))
    assert (draw(pipe, 64, 96) == before).all()


def test_entropy_is_that_of_the_map_at_the_attention_call(tiny, monkeypatch):
    _, pipe = tiny
    seen, plain = [], functional.scaled_dot_product_attention

    def forming_the_map(query, key, value, attn_mask=None, scale=None, **kwargs):
        if attn_mask is None and query.shape[-2] == key.shape[-2]:
            weight = (query.double() @ key.double().mT * (scale or query.shape[-1] ** -0.5)).softmax(-1)
            seen.append(torch.special.entr(weight).sum(-1).mean())
        return plain(query, key, value, attn_mask, scale=scale, **kwargs)

    with el.EntropyProbe(pipe) as probe:
        draw(pipe, 32, 64)
    network = denoiser(pipe)
    calls = {name: [] for name in probe.layers}
    for name in calls:
        module = network.get_submodule(name)
        module.register_forward_pre_hook(lambda *_: seen.clear())
        module.register_forward_hook(lambda *_, name=name: calls[name].append(float(seen[0])))
    monkeypatch.setattr(functional, "scaled_dot_product_attention", forming_the_map)
    draw(pipe, 32, 64)
    measured = probe.table().groupby("layer").entropy.mean()
    for name, values in calls.items():
        assert measured[name] == pytest.approx(sum(values) / len(values), abs=2e-5)
        module = network.get_submodule(name)
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def test_native_size_is_the_identity_bit_for_bit_and_the_probe_changes_nothing(tiny):
    name, pipe = tiny
    size = NATIVE[name]
    assert el.native_size(pipe) == size
    unscaled = draw(pipe, *size, prompts=["a zebra"])
    with el.EntropyProbe(pipe, rows=8) as probe:
        assert (draw(pipe, *size, "paper", prompts=["a zebra"]) == unscaled).all()
    table = probe.table()
    assert (table.tokens == table.training_tokens).all()
    assert (table.height > 0).all()
    assert (table.height == table.width).all()


def test_branches_of_guidance(tiny):
    name, pipe = tiny
    found = {}
    for guidance in (1.0, 3.0):
        with el.EntropyProbe(pipe, rows=4, per_image=True) as probe:
            draw(pipe, 32, 32, guidance=guidance)
        table = probe.table()
        found[guidance] = set(table.branch)
        assert table.step.nunique() == 2
        assert set(table.image) == {0, 1}
    assert found[1.0] == {"all"}
    assert found[3.0] == ({"all"} if name == "flux" else {"cond", "uncond"}), (
        "FLUX is guided by a number, not by a second branch"
    )


@pytest.mark.parametrize("name", JOINT)
def test_joint_attention_counts_the_text_of_the_call(name):
    pipe, (text, image) = build(name, tiny=True), JOINT[name]
    assert set(el.training_tokens(pipe).values()) == {text + image}
    shorter = 32 if name == "flux" else 77 + 32
    with el.scaled(pipe, "paper"), el.EntropyProbe(pipe, rows=4) as probe:
        pipe("a zebra", height=64, width=96, num_inference_steps=1, max_sequence_length=32)
        report = el.scale_report(pipe)
    assert set(report.training_tokens) == {shorter + image}
    assert set(report.tokens) == {shorter + 24}
    table = probe.table()
    assert set(table.training_tokens) == {shorter + image}
    assert set(zip(table.height, table.width, strict=True)) == {(4, 6)}
    assert table.factor.to_numpy() == pytest.approx(expected_factors(table, "paper"), rel=1e-5)


def test_names_of_classes_decide_nothing(network):
    class Other(type(network)):
        pass

    other = Other(**{key: value for key, value in network.config.items() if not key.startswith("_")})
    assert el.training_tokens(other) == el.training_tokens(network)


@pytest.mark.parametrize("family", ["00 sd21-base", "00 sdxl", "00 sd3", "03 flux"])
def test_notebooks_run_on_every_family(family, tmp_path, execute):
    number, name = family.split()
    build(name, tiny=True).save_pretrained(tmp_path / name)
    overrides = {
        "model": str(tmp_path / name),
        # the factors shown are those of the last, where they are not 1
        "sizes": [str(el.Size(*NATIVE[name])), "32x32", "64x96"],
        "steps": 2,  # diffusers takes one step of PixArt for another sampler
        "prompt_count": 1 if number == "00" else 2,  # an interval takes two
        "output": str(tmp_path / "output"),
    }
    notebook = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    execute(notebook, profile_parameters(notebook.stem, "smoke", overrides).model_dump())
