"""What people add to a pipeline, beside patch and probe: each works, or is refused by an error that says what
to do.

One table, `COMBINATIONS`: how the pipeline is prepared, what the patch must do and what the probe must do.
Where both work the probe's measured factor is compared with the rule's; where only the patch works, the
images are compared with those of a pipeline without the addition. Nothing may be silent.
"""

import warnings
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import accelerate
import diffusers
import numpy as np
import pytest
import tomesd
import torch
from DeepCache import DeepCacheSDHelper
from diffusers.models import attention_processor
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from witness import self_attention, witness

import entropy_lib as el
from entropy_lib.errors import (
    AttentionNotSeenError,
    InvalidInputError,
    ScaleNotAppliedError,
    UnsupportedModelError,
)
from entropy_lib.files import ROOT
from entropy_lib.models.architectures import build
from entropy_lib.models.layers import denoiser
from entropy_lib.sampling.rivals import padded, shifted, timestep_replaced
from entropy_lib.scaling.calibration import (
    Calibration,
    LayerResponse,
    calibration_of,
    lengths,
    use_calibration,
)

pytestmark = pytest.mark.slow

RULE = "power(3)"
WORKS = None
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))


def call(pipe, **options):
    """Two prompts at 64 x 96 px, two steps, guided."""
    torch.manual_seed(0)  # for those that are given no generator
    generator = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    common = {"num_inference_steps": 2, "guidance_scale": 3.0, "generator": generator, "output_type": "np"}
    given = common | {"height": 64, "width": 96} | options
    return pipe(
        prompt=["a zebra", "a cup of tea"], **{key: value for key, value in given.items() if value is not ...}
    ).images


# Each prepares a pipeline: changes it in place, or makes another one of it.


def with_processors(kind):
    return lambda pipe: denoiser(pipe).set_attn_processor(kind())


def xformers(pipe):
    """xformers itself is not needed: its processor, with its kernel replaced by a plain softmax."""

    def kernel(query, key, value, attn_bias=None, op=None, scale=None):
        return ((query @ key.mT) * (scale or query.shape[-1] ** -0.5)).softmax(-1) @ value

    attention_processor.xformers = SimpleNamespace(ops=SimpleNamespace(memory_efficient_attention=kernel))
    denoiser(pipe).set_attn_processor(attention_processor.XFormersAttnProcessor())


def fused(pipe):
    denoiser(pipe).fuse_qkv_projections()


def backend(name):
    return lambda pipe: denoiser(pipe).set_attention_backend(name)


def lora(pipe, seed=3):
    torch.manual_seed(seed)
    denoiser(pipe).add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))


def ip_adapter(pipe):
    torch.manual_seed(4)
    crosses = [m for n, m in pipe.unet.named_modules() if n.endswith("attn2")]
    names = [f"{2 * index + 1}.to_{part}_ip.weight" for index in range(len(crosses)) for part in "kv"]
    shapes = [(m.to_k.out_features, 32) for m in crosses for _ in "kv"]
    projection = {"proj.weight": torch.randn(4 * 32, 16), "proj.bias": torch.zeros(128)}
    projection |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    weights = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
    pipe.image_encoder = True  # the embeddings below stand for its output


def controlnet(pipe):
    torch.manual_seed(5)
    control = diffusers.ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(8, 8, 8, 16)
    )
    return other_pipeline("StableDiffusionControlNetPipeline", controlnet=control)(pipe)


def other_pipeline(name, **options):
    def prepare(pipe):
        parts = {key: value for key, value in pipe.components.items() if value is not None}
        checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        own = checker if hasattr(pipe, "safety_checker") else {}
        return getattr(diffusers, name)(**parts, **own, **options)

    return prepare


def scheduler(name, **options):
    def prepare(pipe):
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)

    return prepare


def changed(**config):
    """The same pipeline around a network of another configuration."""

    def prepare(pipe):
        network = denoiser(pipe)
        own = {key: value for key, value in network.config.items() if not key.startswith("_")}
        torch.manual_seed(6)
        part = "unet" if hasattr(pipe, "unet") else "transformer"
        setattr(pipe, part, type(network).from_config(own | config).eval())

    return prepare


def both(*preparations):
    def prepare(pipe):
        for each in preparations:
            made = each(pipe)
            pipe = made if isinstance(made, diffusers.DiffusionPipeline) else pipe
        return pipe

    return prepare


def cached(config):
    """A deeper network with a cache."""
    deeper = changed(num_layers=2, num_single_layers=2)
    return both(deeper, lambda pipe: pipe.transformer.enable_cache(config))


def faster_cache(attention_timesteps):
    config = diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=3, spatial_attention_timestep_skip_range=attention_timesteps,
        unconditional_batch_skip_range=2, unconditional_batch_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: 500, tensor_format="BCHW",
        attention_weight_callback=lambda _: 0.5,
        _unconditional_conditional_input_kwargs_identifiers=(
            "hidden_states", "encoder_hidden_states", "timestep", "pooled_projections"
        ),
    )  # fmt: skip
    return lambda pipe: diffusers.hooks.apply_faster_cache(pipe.transformer, config)


class SharedAttention(attention_processor.AttnProcessor2_0):
    """Every image attends to the keys of its neighbour in the batch, too (StyleAligned, cross-frame
    attention).
    """

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        shared = torch.cat([hidden_states, hidden_states.roll(1, 0)], 1)
        return super().__call__(
            attn, hidden_states, shared if encoder_hidden_states is None else encoder_hidden_states
        )


def deep_cache(pipe):
    pipe.deep_cache = DeepCacheSDHelper(pipe=pipe)
    pipe.deep_cache.set_params(cache_interval=2)
    pipe.deep_cache.enable()


def group_offloaded(kind, **options):
    cpu = torch.device("cpu")
    return lambda pipe: pipe.unet.enable_group_offload(cpu, cpu, offload_type=kind, **options)


def quantised(pipe):
    """Weights of linear layers as whole numbers, with a scale a row."""
    for module in pipe.unet.modules():
        if type(module) is torch.nn.Linear:
            scale = module.weight.detach().abs().amax(1, keepdim=True) / 127
            whole = (module.weight.detach() / scale).round().to(torch.int8)
            module.forward = lambda x, whole=whole, scale=scale, bias=module.bias: functional.linear(
                x, whole.to(x.dtype) * scale, bias
            )
            module.weight.data = torch.empty(0)


SLICED = (AttentionNotSeenError, "disable_attention_slicing")


def refused_by_both(message):
    return {"patch": (ScaleNotAppliedError, message), "probe": (AttentionNotSeenError, message)}


LORA_LEFT_OUT = refused_by_both("diffusers then leaves its LoRA out")
JOINED = refused_by_both("joins tokens of other images or merges tokens")
HALF_CACHED = (AttentionNotSeenError, "disable_cache")
CACHES = {
    "FirstBlockCache": diffusers.FirstBlockCacheConfig(threshold=0.9),
    "MagCache": diffusers.MagCacheConfig(mag_ratios=np.ones(6), num_inference_steps=6, retention_ratio=0.1),
    "pyramid attention broadcast": diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(0, 1001),
        current_timestep_callback=lambda: 500,
    ),
    "TaylorSeer": diffusers.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1),
}  # fmt: skip
SIX = {"num_inference_steps": 6}
PIX2PIX = {"image": [PICTURE] * 2, "image_guidance_scale": 1.5, "height": ..., "width": ...}
CYCLE = {"source_prompt": ["a horse", "a glass"], "strength": 1.0}
CYCLE |= {"image": [PICTURE] * 2, "height": ..., "width": ...}
# of two images, diffusers takes one for the other's condition
OUT_OF_TURN = (AttentionNotSeenError, "one image at a time")
# there the perturbed branch attends to nothing but itself, by a mask
MASKED = (InvalidInputError, "was called with a mask")
EMBEDDINGS = torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(0))


def case(architecture, prepare=lambda pipe: None, patch=WORKS, probe=WORKS, **options):
    """How a pipeline is prepared and called, and what must come of patch and probe: WORKS, or an error."""
    return architecture, prepare, patch, probe, options


COMBINATIONS = {
    "default": case("sd21-base"),
    "convolutional projections": case("sd15"),
    "plain attention": case("sd21-base", with_processors(attention_processor.AttnProcessor)),
    "sliced attention": case("sd21-base", lambda pipe: pipe.enable_attention_slicing(), probe=SLICED),
    "xformers": case("sd21-base", xformers),
    "fused projections": case("sd21-base", fused),
    "fused projections, joint": case("sd3", fused),
    "fused projections, normalised": case("flux", fused),
    "attention backend native": case("flux", backend("native")),
    "attention backend math": case("flux", backend("_native_math")),
    "attention backend flex": case("flux", backend("flex")),
    "CPU offload": case(
        "sd21-base", lambda pipe: accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu")),
    ),
    "group offload, blocks": case("sd21-base", group_offloaded("block_level", num_blocks_per_group=1)),
    "group offload, leaves": case("sd21-base", group_offloaded("leaf_level")),
    "layerwise casting": case(
        "sd21-base", lambda pipe: pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
    ),
    "quantised linear layers": case("sd21-base", quantised),
    "LoRA": case("sd21-base", lora),
    "LoRA, joint": case("sd3", lora),
    "IP-Adapter": case("sd21-base", ip_adapter, ip_adapter_image_embeds=[EMBEDDINGS]),
    "ControlNet": case("sd21-base", controlnet, image=[PICTURE] * 2),
    "PAG": case("sd21-base", other_pipeline("StableDiffusionPAGPipeline", pag_applied_layers=["mid"])),
    "PAG without guidance": case(
        "sd21-base", other_pipeline("StableDiffusionPAGPipeline", pag_applied_layers=["mid"]),
        guidance_scale=1.0,
    ),
    "PAG, joint": case(
        "sd3", other_pipeline("StableDiffusion3PAGPipeline", pag_applied_layers=["blocks.1"]), probe=MASKED,
    ),
    "image to image": case(
        "sd21-base", other_pipeline("StableDiffusionImg2ImgPipeline"), image=[PICTURE] * 2, strength=1.0,
        height=..., width=...,
    ),
    "inpainting": case(
        "sd21-base", other_pipeline("StableDiffusionInpaintPipeline"), image=[PICTURE] * 2,
        mask_image=[PICTURE.convert("L")] * 2,
    ),
    "several images a prompt": case("sd21-base", num_images_per_prompt=2, generator=None),
    "guidance off": case("sd21-base", guidance_scale=1.0),
    "true guidance of FLUX": case("flux", true_cfg_scale=2.0, negative_prompt=["", ""]),
    "InstructPix2Pix": case(
        "sd21-base", both(changed(in_channels=8), other_pipeline("StableDiffusionInstructPix2PixPipeline")),
        **PIX2PIX,
    ),
    "Cycle diffusion": case(
        "sd21-base", other_pipeline("CycleDiffusionPipeline"), **CYCLE, guidance_scale=1.0,
    ),
    "Cycle diffusion, guided": case(
        "sd21-base", other_pipeline("CycleDiffusionPipeline"), probe=OUT_OF_TURN, **CYCLE,
    ),
    "edits (Semantic guidance)": case(
        "sd21-base", other_pipeline("SemanticStableDiffusionPipeline"),
        editing_prompt=["smiling", "glasses"], edit_warmup_steps=0,
    ),
    "PAG on PixArt-Sigma": case(
        "pixart", other_pipeline("PixArtSigmaPAGPipeline", pag_applied_layers=["blocks.1"]),
        use_resolution_binning=False,
    ),
    "image-only attention beside joint (SD3.5)": case("sd3", changed(dual_attention_layers=(0,))),
    "reference image (FLUX Kontext)": case(
        "flux", other_pipeline("FluxKontextPipeline"), image=[PICTURE] * 2, _auto_resize=False,
        max_area=64 * 96,
    ),
    "LoRA, fused projections": case(
        "sd21-base", both(lora, fused), **LORA_LEFT_OUT,
    ),
    "LoRA, fused projections, joint": case(
        "flux", both(lora, fused), **LORA_LEFT_OUT,
    ),
    "shared attention": case(
        "sd21-base", with_processors(SharedAttention), **JOINED,
    ),
    "merged tokens (tomesd)": case(
        "sd21-base", lambda pipe: tomesd.apply_patch(pipe, ratio=0.5, use_rand=False), **JOINED,
    ),
    "GLIGEN": case(
        "sd21-base",
        both(
            changed(attention_type="gated", cross_attention_dim=32),
            other_pipeline("StableDiffusionGLIGENPipeline"),
        ),
        patch=(UnsupportedModelError, "fuser"), probe=(UnsupportedModelError, "fuser"),
        gligen_phrases=["a cup"] * 2, gligen_boxes=[[0.1, 0.1, 0.5, 0.5]] * 2, generator=None,
    ),
    "DeepCache": case("sd21-base", deep_cache, **SIX),
    **{
        name: case("flux", cached(config), **SIX) for name, config in CACHES.items()
    },
    "FasterCache": case("sd3", faster_cache((-1, 1001)), probe=HALF_CACHED, **SIX),
    # every layer attends at every step, but at some for the conditional half of the batch alone
    "FasterCache, unconditional passes alone": case(
        "sd3", faster_cache((-1, 0)), probe=HALF_CACHED, **SIX,
    ),
    "Euler ancestral": case("sd21-base", scheduler("EulerAncestralDiscreteScheduler")),
    "SDE-DPM++": case(
        "sd21-base", scheduler("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
    ),
    "EDM": case("sd21-base", scheduler("EDMEulerScheduler")),
    "PNDM": case("sd21-base", scheduler("PNDMScheduler", skip_prk_steps=True)),
    "Euler": case("sd21-base", scheduler("EulerDiscreteScheduler")),
    "DPM++": case("sd21-base", scheduler("DPMSolverMultistepScheduler")),
    "Heun": case("sd21-base", scheduler("HeunDiscreteScheduler")),
}  # fmt: skip
# as without the addition
SAME_IMAGES = (
    "plain attention", "sliced attention", "xformers", "fused projections", "attention backend flex",
)  # fmt: skip


def narrower(options):
    """The same call for 64 x 64 px."""
    pictures = {
        key: [each.crop((0, 0, 64, 64)) for each in options[key]]
        for key in ("image", "mask_image")
        if key in options
    }
    return options | pictures | {"width": ... if options.get("width") is ... else 64}


def prepared(name):
    """A pipeline with an addition, and the options of its call."""
    architecture, prepare, *_, options = COMBINATIONS[name]
    pipe = both(prepare)(build(architecture, tiny=True))
    pipe.set_progress_bar_config(disable=True)
    return pipe, options


@pytest.fixture(params=COMBINATIONS)
def combination(request):
    """A prepared pipeline, its call, and what must come of patch and probe."""
    architecture, _, patch, probe, _ = COMBINATIONS[request.param]
    pipe, options = prepared(request.param)

    def run(other=None, given=options):
        if hasattr(denoiser(pipe), "_diffusers_hook"):
            denoiser(pipe)._diffusers_hook.reset_stateful_hooks()  # which not every pipeline does after a run
        return call(other or pipe, **given)

    def seen(replay=None, given=options):
        with witness(denoiser(pipe), replay) as calls:
            return run(given=given), calls

    yield SimpleNamespace(
        name=request.param, pipe=pipe, run=run, patch=patch, probe=probe, architecture=architecture,
        seen=seen,
        narrow=lambda: seen(given=narrower(options))[1],
    )  # fmt: skip
    # diffusers sets it for all models at once
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@pytest.mark.parametrize("name", ["DeepCache", *CACHES])
def test_a_cache_that_skips_layers_is_reported(name):
    """Six steps: means of layers are over different ones, which is said, and can be had over those that all
    have.
    """
    pipe, options = prepared(name)
    with el.EntropyProbe(pipe, rows=4) as probe:
        call(pipe, **options)
    with pytest.warns(
        UserWarning, match=r"of [47] layers did not attend at all 6 steps.*shared_steps=True.*disable_cache"
    ):
        table = probe.table()
    steps = table.groupby("layer").step.unique().map(set)
    assert min(map(len, steps)) < 6
    shared = probe.table(shared_steps=True)
    assert set(shared.step) == set.intersection(*steps)
    assert len(shared) == len(table[table.step.isin(set(shared.step))])


def refused(outcome):
    return nullcontext() if outcome is WORKS else pytest.raises(outcome[0], match=outcome[1])


def test_the_patch_works_or_is_refused(combination):
    """Where it works, a witness at the softmax, which knows nothing of the library, sees no self-attention
    that is left out.
    """
    before, calls = combination.seen()
    with refused(combination.patch), el.scaled(combination.pipe, RULE):
        after = combination.run()
        report = el.scale_report(combination.pipe).set_index("layer")
        expected = self_attention(combination.narrow(), calls)
        assert set(report.index) == set(expected)
        assert all(row.tokens in expected[layer] for layer, row in report.iterrows())
        _, patched = combination.seen(replay=calls)
        measured = {(call.module, now.scale / call.scale) for call, now in zip(calls, patched, strict=True)}
        for layer, factor in measured:
            assert factor == pytest.approx(report.factor.get(layer, 1.0), rel=1e-4), layer
        assert np.abs(after.astype(float) - before).max() > 1e-6, "a rule that changes nothing proves nothing"
        if combination.name in SAME_IMAGES:
            plain = build(combination.architecture, tiny=True)
            with el.scaled(plain, RULE):
                assert np.allclose(combination.run(plain), after, atol=2e-4)
    assert np.array_equal(combination.run(), before), "restored"


BRANCHES = {
    "PAG": {"cond", "uncond", "perturbed"},
    "PAG without guidance": {"cond", "perturbed"},
    "guidance off": {"all"},
    "true guidance of FLUX": {"all", "extra"},
    "PNDM": {"cond", "uncond"},
    "InstructPix2Pix": {"all"},
    "Cycle diffusion": {"all"},
    "edits (Semantic guidance)": {"all"},
    "PAG on PixArt-Sigma": {"cond", "uncond", "perturbed"},
    "Heun": {"cond", "uncond"},
}


def test_the_probe_works_and_measures_the_factor_of_the_rule_or_is_refused(combination):
    works = combination.probe is WORKS
    patched = el.scaled(combination.pipe, RULE) if works and combination.patch is WORKS else nullcontext()
    with refused(combination.probe), patched, el.EntropyProbe(combination.pipe, per_image=True) as probe:
        _, calls = combination.seen()
    if not works:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*did not attend at all")
        table = probe.table()
    assert set(table.layer) == set(self_attention(combination.narrow(), calls))
    assert (table.height * table.width > 0).all(), "a layer without its grid"
    assert table.step.nunique() == 2 or combination.name in ("DeepCache", *CACHES)
    assert table.image.nunique() == (4 if combination.name == "several images a prompt" else 2)
    if combination.patch is WORKS:
        expected = [
            el.rule(RULE).factor(*count) for count in zip(table.tokens, table.training_tokens, strict=True)
        ]
        assert table.factor.to_numpy() == pytest.approx(expected, rel=1e-6)
        assert (table.factor != 1).all()
    assert set(table.branch) == BRANCHES.get(combination.name, set(table.branch))
    if combination.name == "PAG":
        layers = table[table.branch == "perturbed"].layer
        assert not layers.str.startswith("mid").any(), "there that branch attends to nothing but itself"


def test_a_lora_swapped_under_the_patch_is_scaled_like_one_that_was_there(tmp_path):
    for seed in (3, 4):
        trained = build("sd21-base", tiny=True)
        lora(trained, seed)
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(trained.unet))
        trained.save_lora_weights(tmp_path / f"{seed}", unet_lora_layers=layers)
    images = []
    for loaded in (3, 4):
        pipe = build("sd21-base", tiny=True)
        pipe.load_lora_weights(tmp_path / f"{loaded}", adapter_name="style")
        with el.scaled(pipe, RULE), el.EntropyProbe(pipe, rows=4) as probe:
            if loaded == 3:
                pipe.load_lora_weights(tmp_path / "4", adapter_name="style", hotswap=True)
            images.append(call(pipe))
        assert (probe.table().factor > 1).all()
    assert np.array_equal(*images)


def test_windows_of_one_run_are_of_the_same_images():
    """Panorama calls its network for each window, and gives the scheduler a copy of its state each time."""
    pipe = other_pipeline("StableDiffusionPanoramaPipeline")(build("sd21-base", tiny=True))
    arguments = {"height": 64, "width": 576, "num_inference_steps": 2, "output_type": "np"}
    with el.EntropyProbe(pipe, rows=4, per_image=True) as probe:
        for prompts in (["a snail", "a boat"], ["an owl", "a bus"]):
            pipe(prompts, **arguments)
    table = probe.table()
    assert set(table.image) == {0, 1, 2, 3}, "two runs of two images, two windows each"
    assert set(table.step) == {0, 1}


# what is tried with other kinds of rules and with interventions
BESIDE = ("LoRA", "IP-Adapter", "ControlNet", "PAG", "guidance off")


@pytest.fixture(params=BESIDE)
def beside(request):
    """A prepared pipeline with a calibration, and its call."""
    pipe, options = prepared(request.param)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    training, factors = el.training_tokens(pipe), (0.25, 0.5, 1.0, 2.0, 4.0)
    curves = {
        name: [[np.log(n) * (1 - f / (8 + 2 * head)) for f in factors] for head in range(2)]
        for name, n in training.items()
    }
    layers = {name: LayerResponse(training[name], factors, curve) for name, curve in curves.items()}
    use_calibration(denoiser(pipe), Calibration(lengths(denoiser(pipe), layers), layers))
    return SimpleNamespace(name=request.param, pipe=pipe, run=lambda: call(pipe, **options))


def expected_factor(pipe, chosen, row):
    """Of one row of the probe's table: two steps begin at pure noise and half-way."""
    inside = chosen.holds(row.step / 2) and row.layer in chosen.layers(el.training_tokens(pipe))
    if not inside or not chosen.calibrated:
        return chosen.factor(row.tokens, row.training_tokens) if inside else 1.0
    return (
        calibration_of(denoiser(pipe), chosen.name).factors(chosen, row.layer, row.tokens).factors[row.head]
    )


@pytest.mark.parametrize("kind", ["power(3)[0]", "power(3)@0-0.5", "equal-entropy(heads)"])
def test_rules_of_a_level_a_window_and_each_head_go_with_additions(beside, kind):
    before = beside.run()
    with el.scaled(beside.pipe, kind), el.EntropyProbe(beside.pipe) as probe:
        after = beside.run()
    table = probe.table()
    expected = [expected_factor(beside.pipe, el.rule(kind), row) for row in table.itertuples()]
    assert table.factor.to_numpy() == pytest.approx(expected, rel=1e-6)
    assert len({round(factor, 3) for factor in expected}) > 1, (
        "a rule that is the same everywhere proves nothing"
    )
    assert not np.array_equal(before, after)
    assert np.array_equal(beside.run(), before), "restored"


INTERVENTIONS = {
    "padding": lambda pipe: padded(denoiser(pipe), "circular"),
    "noise level": lambda pipe: timestep_replaced(
        denoiser(pipe), lambda timestep: (timestep * 0.8).to(timestep.dtype)
    ),
    "schedule": lambda pipe: scheduled(pipe, 2.0),
}


@contextmanager
def scheduled(pipe, ratio):
    own, pipe.scheduler = pipe.scheduler, shifted(pipe.scheduler, ratio)
    yield
    pipe.scheduler = own


@pytest.mark.parametrize("kind", INTERVENTIONS)
def test_interventions_go_with_additions_and_with_a_rule(beside, kind):
    before = beside.run()
    with INTERVENTIONS[kind](beside.pipe):
        alone = beside.run()
        with el.scaled(beside.pipe, RULE):
            ruled = beside.run()
            assert (el.scale_report(beside.pipe).calls > 0).all()
    assert not np.array_equal(before, alone)
    assert not np.array_equal(alone, ruled)
    assert np.array_equal(beside.run(), before), "restored"


def one_level(network):
    """A network like another, with attention at one resolution: compiling takes seconds a layer."""
    levels = {
        "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    torch.manual_seed(6)
    return type(network).from_config(dict(network.config) | levels).eval()


@pytest.mark.slow
def test_compiled_models_are_compiled_again_with_the_patch():
    """A graph does not notice hooks that come after it: without help, a patch would change nothing, and say
    nothing.
    """
    network, graphs = one_level(build("sd21-base", tiny=True).unet), []
    inputs = {
        "sample": torch.randn(2, 4, 8, 12),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(2, 7, 32),
    }
    with torch.no_grad(), el.scaled(network, RULE):
        expected = network(**inputs).sample

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def run():
        graphs.clear()
        with torch.no_grad():
            return network(**inputs).sample, len(graphs)

    network.compile(backend=backend)
    plain, whole = run()
    with el.scaled(network, RULE):
        patched, parts = run()
    assert whole == 1
    assert whole < parts, "hooks break the graph, as documented"
    assert torch.allclose(patched, expected, atol=1e-5)
    assert not torch.allclose(patched, plain, atol=1e-5)
    assert torch.equal(run()[0], plain)
    with el.scaled(network, "power(3)@0-0.4"):  # timestep 500 is beyond it
        assert torch.allclose(run()[0], plain, atol=1e-5)
    with el.EntropyProbe(network, rows=4) as probe:
        run()
    assert set(probe.table().layer) == set(el.training_tokens(network))


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=lambda k: k.name)
def test_every_kernel_of_torch_sees_the_factor(kernel):
    pipe, original = build("sd21-base", tiny=True), functional.scaled_dot_product_attention
    with el.scaled(pipe, RULE):
        expected = call(pipe)
        with sdpa_kernel(kernel), el.EntropyProbe(pipe) as probe:
            assert np.allclose(call(pipe), expected, atol=1e-4)
    assert functional.scaled_dot_product_attention is original, (
        "neither the patch nor the probe may replace it"
    )
    assert len(probe.table())


def test_the_documentation_says_what_is_tested():
    rows = [
        line.strip("|\n").split("|")
        for line in (ROOT / "docs" / "combinations.md").read_text().splitlines()
        if line[:1] == "|"
    ]
    documented = {name.strip(): (patch.strip(), probe.strip()) for name, patch, probe in rows[2:]}
    words = {True: "works", False: "refused"}
    tested = {
        name: (words[patch is WORKS], words[probe is WORKS])
        for name, (_, _, patch, probe, _) in COMBINATIONS.items()
    }
    assert documented == tested
