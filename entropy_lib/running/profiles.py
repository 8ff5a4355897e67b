"""Profiles: the values of the notebooks' parameters, as YAML files in `notebooks/profiles/` with a section for each notebook.

A profile with a line `extends: other` says only what differs from that one; all that it says wins over all that the other says.

Example:
    >>> profile_parameters("00_quickstart", "mini").rule
    'paper'
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT
from entropy_lib.running.parameters import (
    CLASSES,
    NOTEBOOKS,
    ParameterError,
    Parameters,
    check_parameters,
    parameter_names,
    written_values,
)

PROFILES = ROOT / "notebooks" / "profiles"
COMMON, EXTENDS = "common", "extends"


@dataclass(frozen=True)
class ProfileRun:
    """A notebook in a profile.

    Args:
        parameters: checked.
        changed: those of them that are not the profile's.
        name: of the folders that the run has alone: the profile's, and where anything was changed a checksum of that.
    """

    parameters: Parameters
    changed: dict[str, Any]
    name: str


def profile_run(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> ProfileRun:
    """A run of a notebook in a profile, with an output folder that no run with other parameters has.

    Args:
        notebook: its file name without ending.
        profile: name of a file in `notebooks/profiles/`, without ending.
        overrides: values that replace those of the profile.

    Raises:
        UnknownNameError: for an unknown notebook, profile, section or parameter.
        ParameterError: for a profile that cannot be read, and for a missing or unusable value.
    """
    if notebook not in NOTEBOOKS:
        raise UnknownNameError("notebook", notebook, NOTEBOOKS)
    own, overrides = section(notebook, profile), overrides or {}
    _check_names(f"parameter of {notebook}", own | overrides, NOTEBOOKS[notebook].model_fields)
    checked = check_parameters(notebook, own | overrides)
    changed = checked.model_dump(include={name for name, value in overrides.items() if name not in own or own[name] != value})
    if not changed:
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


def section(notebook: str, profile: str) -> dict[str, Any]:
    """What a profile says of a notebook: its own section before its `common` values, and both before the profile it extends.

    Without a class of its own a notebook needs no section: what a profile does not say is as its parameters cell has it.
    """
    files, fields = _files(profile), NOTEBOOKS[notebook].model_fields
    if notebook in CLASSES and not any(notebook in content for content in files):
        raise ParameterError(f"profile {profile!r} has no section {notebook!r}; add one to notebooks/profiles/{profile}.yaml")
    places = {"output": output_folder(profile, notebook), "store": f"build/sweeps/{profile}"}
    values = written_values(notebook) | {name: place for name, place in places.items() if name in fields}
    for content in files:
        values |= {name: value for name, value in content.get(COMMON, {}).items() if name in fields}
        values |= content.get(notebook, {})
    return values


def _files(profile: str, above: tuple[str, ...] = ()) -> list[dict[str, dict]]:
    """The sections of each file that a profile is made of: first that of the profile which extends no other, its own last."""
    if profile not in available():
        raise UnknownNameError("profile", profile, available())
    if profile in above:
        raise ParameterError(
            f"profiles extend each other in a circle: {' → '.join((*above, profile))}; take one of these lines out"
        )
    own = _checked_sections(profile, _read(PROFILES / f"{profile}.yaml"))
    base = _files(own.pop(EXTENDS), (*above, profile)) if EXTENDS in own else []
    return [*base, own]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ParameterError) as error:
        raise ParameterError(f"the profile {path.name} cannot be read: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ParameterError(
            f"the profile {path.name} must hold sections: {COMMON!r} or names of notebooks, each with values under it"
        )
    return content


def _checked_sections(profile: str, content: dict[str, Any]) -> dict[str, Any]:
    """Sections that are known and hold known parameters; an empty one is {}."""
    _check_names(f"section of profile {profile!r}", content, [COMMON, EXTENDS, *NOTEBOOKS])
    if not isinstance(content.get(EXTENDS, ""), str):
        raise ParameterError(f"profile {profile!r} extends {content[EXTENDS]!r}; write the name of one other profile")
    for name, values in content.items():
        if name != EXTENDS and not isinstance(values, dict | None):
            raise ParameterError(f"section {name!r} of profile {profile!r} is {values!r}; write lines of name: value under it")
    sections = {name: values if name == EXTENDS else values or {} for name, values in content.items()}
    every = {field for notebook in NOTEBOOKS for field in parameter_names(notebook)}
    for name in sections.keys() - {EXTENDS}:
        known = every - {"output"} if name == COMMON else parameter_names(name) or sections[name]  # a broken notebook has none
        _check_names(f"parameter in section {name!r} of profile {profile!r}", sections[name], known)
    return sections


def _check_names(kind: str, names: Iterable[object], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from the command line, each read as YAML; of a name that is given twice the last value counts.

    Raises:
        ParameterError: for a text that is not written as name=value.

    Example:
        >>> overrides(["steps=10", "sizes=[32x32, 64x64]"])
        {'steps': 10, 'sizes': ['32x32', '64x64']}
    """
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ParameterError(f"{text!r} is not written as name=value")
        try:
            values[name] = load_yaml(value) if value else ""
        except ParameterError as error:
            raise ParameterError(f"{text!r} is no YAML ({error}); put the value in quotes: {name}='\"…\"'") from None
    return values


def load_yaml(text: str) -> Any:
    """Read YAML as people mean it: 1e-3 is a number; 0x64, 010, 1:30, yes and dates are text; no key may be repeated.

    Raises:
        ParameterError: for text that is no YAML, with the line.

    Example:
        >>> load_yaml("[1e-3, 0x64, no, -2]")
        [0.001, '0x64', 'no', -2]
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        tabs = "; indent with spaces, not tabs" if "\t" in text else ""
        raise ParameterError(f"{error.problem or error.context}{where}{tabs}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # a forbidden character; brackets without end; !!int x
        raise ParameterError(str(error) or "not readable") from None


class _Loader(yaml.SafeLoader):
    """Strings, decimal numbers, true, false and null; PyYAML's own rules are those of YAML 1.1."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for index, key in enumerate(keys) if key in keys[:index]]:
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _kind, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|Null|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first))


def available() -> list[str]:
    """Names of the profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if path.is_file())
