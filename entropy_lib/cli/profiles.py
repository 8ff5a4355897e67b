"""Profiles: other values of the notebooks' parameters, as YAML files in `notebooks/profiles/`.

A section is of one notebook, `common` of all that have such a parameter. A profile with a line `extends:
other` says only what differs from that one; all that it says wins over all that the other says.

Example:
    >>> profile_parameters("00_quickstart", "mini").rule
    'paper'
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import yaml

from entropy_lib.cli.parameters import (
    NOTEBOOKS,
    TYPES,
    ParameterError,
    Parameters,
    Sweep,
    check_parameters,
    check_together,
    parameter_names,
)
from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT

PROFILES = ROOT / "notebooks" / "profiles"
COMMON, EXTENDS = "common", "extends"


@dataclass(frozen=True)
class ProfileRun:
    """A notebook in a profile."""

    parameters: Parameters  # checked
    changed: dict[str, Any]  # those of them that are not the profile's
    # of the folders that the run has alone: the profile's, and where anything was changed a checksum of that
    name: str


def profile_run(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> ProfileRun:
    """A run of a notebook in a profile, with an output folder that no run with other parameters has."""
    if notebook not in NOTEBOOKS:
        raise UnknownNameError("notebook", notebook, NOTEBOOKS)
    own, overrides = _values(notebook, profile), overrides or {}
    _check_names(f"parameter of {notebook}", own | overrides, NOTEBOOKS[notebook].model_fields)
    checked = check_parameters(notebook, own | overrides)
    check_together(notebook, checked)
    other = {name for name, value in overrides.items() if name not in own or own[name] != value}
    if not (changed := checked.model_dump(include=other)):
        return ProfileRun(checked, {}, profile)
    name = f"{profile}-{hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]}"
    if "output" not in changed:
        checked = checked.model_copy(update={"output": output_folder(name, notebook)})
    return ProfileRun(checked, changed, name)


def profile_parameters(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> Parameters:
    """The checked parameters of a notebook in a profile; see `profile_run`."""
    return profile_run(notebook, profile, overrides).parameters


def output_folder(run: str, notebook: str) -> str:
    """Where a notebook writes figures and tables, in the workplace, unless its parameters say otherwise.

    Example:
        >>> output_folder("mini", "00_quickstart")
        'build/output/mini/00_quickstart'
    """
    return f"build/output/{run}/{notebook}"


def _values(notebook: str, profile: str) -> dict[str, Any]:
    """A profile's own section wins over its `common` one, both over what it extends, all over the cell."""
    values = dict(NOTEBOOKS[notebook].defaults)
    said = [{"output": output_folder(profile, notebook), "store": f"build/sweeps/{profile}"}]
    for content in _files(profile):
        said += content.get(COMMON, {}), content.get(notebook, {})
    for part in said:
        values |= {name: value for name, value in part.items() if name in values}
    return values


def _files(profile: str, above: tuple[str, ...] = ()) -> list[dict[str, dict]]:
    """The sections of each file that a profile is made of: one that extends no other first, its own last."""
    if profile not in available():
        raise UnknownNameError("profile", profile, available())
    if profile in above:
        circle = " → ".join((*above, profile))
        raise ParameterError(f"profiles extend each other in a circle: {circle}; take one of these lines out")
    try:
        content = _parsed((PROFILES / f"{profile}.yaml").read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ParameterError) as error:
        raise ParameterError(f"the profile {profile}.yaml cannot be read: {error}") from None
    if not isinstance(content, dict) or not content:
        allowed = f"{COMMON!r} or names of notebooks, each with values under it"
        raise ParameterError(f"the profile {profile}.yaml must hold sections: {allowed}")
    _check_names(f"section of profile {profile!r}", content, [COMMON, EXTENDS, *NOTEBOOKS])
    own = {name: _section(profile, name, values) for name, values in content.items() if name != EXTENDS}
    if EXTENDS not in content:
        return [own]
    if not isinstance(base := content[EXTENDS], str):
        raise ParameterError(f"profile {profile!r} extends {base!r}; write the name of one other profile")
    return [*_files(base, (*above, profile)), own]


def _section(profile: str, name: str, values: Any) -> dict[str, Any]:
    values = {} if values is None else values
    if not isinstance(values, dict):
        wanted = "write lines of name: value under it"
        raise ParameterError(f"section {name!r} of profile {profile!r} is {values!r}; {wanted}")
    if name == COMMON:
        known = {*TYPES, *Sweep.model_fields}.union(*map(parameter_names, NOTEBOOKS)) - {"output"}
    else:
        known = parameter_names(name) or values  # a broken notebook has none
    _check_names(f"parameter in section {name!r} of profile {profile!r}", values, known)
    return values


def _check_names(kind: str, names: Iterable[object], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from the command line, each read as YAML; of a name given twice the last value counts."""
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ParameterError(f"{text!r} is not written as name=value")
        try:
            values[name] = load_yaml(value) if value else ""
        except ParameterError as error:
            wanted = f"put the value in quotes: {name}='\"…\"'"
            raise ParameterError(f"{text!r} is no YAML ({error}); {wanted}") from None
    return values


class _Loader(yaml.SafeLoader):
    """As YAML 1.2; by PyYAML's own rules, of 1.1, 1e-3 is a text, `no` is False and 1:30 is 90."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for index, key in enumerate(keys) if key in keys[:index]]:
            twice = f"{repeated[0]!r} occurs twice"
            raise yaml.constructor.ConstructorError(None, None, twice, node.start_mark)
        return super().construct_mapping(node, deep)


for _kind, _pattern in {
    "bool": r"[tT]rue|[fF]alse",
    "null": r"~|[nN]ull|",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$"), None)


def load_yaml(text: str) -> Any:
    """Read YAML as people mean it: 1e-3 is a number; 0x64, 1:30, yes and dates are text; no key repeats."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        tabs = "; indent with spaces, not tabs" if "\t" in text else ""
        raise ParameterError(f"{error.problem or error.context}{where}{tabs}") from None
    # a forbidden character; brackets without end; !!int x
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ParameterError(str(error) or "not readable") from None


_parsed = lru_cache(load_yaml)  # of files, which are read again and again; whoever asks changes nothing


def available() -> list[str]:
    """Names of the profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if path.is_file())
