"""Profiles: the values of the notebooks' parameters, as YAML files in `notebooks/profiles/` with a section for each notebook.

A profile with a line `extends: other` says only what differs from that one.

Example:
    >>> profile_parameters("00_quickstart", "mini").rule
    'paper'
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT
from entropy_lib.running.parameters import CLASSES, NOTEBOOKS, ParameterError, Parameters, check_parameters, written_values

PROFILES = ROOT / "notebooks" / "profiles"
COMMON, EXTENDS = "common", "extends"


def profile_parameters(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> Parameters:
    """The checked parameters of a notebook in a profile.

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
    values = section(notebook, profile) | (overrides or {})
    _check_names(f"parameter of {notebook}", values, NOTEBOOKS[notebook].model_fields)
    return check_parameters(notebook, values)


def section(notebook: str, profile: str) -> dict[str, Any]:
    """What a profile says of a notebook: those `common` values that it takes, then those of the notebook's own section.

    Without a class of its own a notebook needs no section: what a profile does not say is as its parameters cell has it.
    """
    content, fields = _content(profile), NOTEBOOKS[notebook].model_fields
    if notebook in CLASSES and notebook not in content:
        raise ParameterError(f"profile {profile!r} has no section {notebook!r}; add one to notebooks/profiles/{profile}.yaml")
    common = {name: value for name, value in content.get(COMMON, {}).items() if name in fields}
    places = {"output": f"build/output/{profile}/{notebook}", "store": f"build/sweeps/{profile}"}
    own = {name: place for name, place in places.items() if name in fields}
    return written_values(notebook) | common | own | content.get(notebook, {})


def _content(profile: str, above: tuple[str, ...] = ()) -> dict[str, dict]:
    """The sections of a profile, on top of those of the profile that it extends."""
    if profile not in available():
        raise UnknownNameError("profile", profile, available())
    if profile in above:
        raise ParameterError(
            f"profiles extend each other in a circle: {' → '.join((*above, profile))}; take one of these lines out"
        )
    own = _checked_sections(profile, _read(PROFILES / f"{profile}.yaml"))
    base = _content(own.pop(EXTENDS), (*above, profile)) if EXTENDS in own else {}
    return base | {name: base.get(name, {}) | values for name, values in own.items()}


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
    every = {field for parameters in NOTEBOOKS.values() for field in parameters.model_fields}
    for name in sections.keys() - {EXTENDS}:
        known = every if name == COMMON else NOTEBOOKS[name].model_fields
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
