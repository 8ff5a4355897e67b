"""Profiles: the values of the notebooks' parameters, as YAML files in `notebooks/profiles/` with a section for each notebook.

A profile with a line `extends: other` says only what differs from that one.

Example:
    >>> profile_parameters("00_quickstart", "mini").rule
    'paper'
"""

from collections.abc import Sequence
from typing import Any

import yaml

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import ROOT
from entropy_lib.running.parameters import NOTEBOOKS, ParameterError, Parameters, check_parameters

PROFILES = ROOT / "notebooks" / "profiles"


def profile_parameters(notebook: str, profile: str, overrides: dict[str, Any] | None = None) -> Parameters:
    """The checked parameters of a notebook in a profile.

    Args:
        notebook: its file name without ending.
        profile: name of a file in `notebooks/profiles/`, without ending.
        overrides: values that replace those of the profile.

    Raises:
        UnknownNameError: for an unknown notebook, profile or parameter.
        ParameterError: for a missing or unusable value.
    """
    if notebook not in NOTEBOOKS:
        raise UnknownNameError("notebook", notebook, NOTEBOOKS)
    values = section(notebook, profile) | (overrides or {})
    for name in values:
        if name not in NOTEBOOKS[notebook].model_fields:
            raise UnknownNameError(f"parameter of {notebook}", name, NOTEBOOKS[notebook].model_fields)
    return check_parameters(notebook, values)


def section(notebook: str, profile: str) -> dict[str, Any]:
    """What a profile says of a notebook: those `common` values that it takes, then those of the notebook's own section."""
    content = _content(profile)
    if notebook not in content:
        raise ParameterError(f"profile {profile!r} has no section {notebook!r}; add one to notebooks/profiles/{profile}.yaml")
    common = {name: value for name, value in content.get("common", {}).items() if name in NOTEBOOKS[notebook].model_fields}
    places = {"output": f"build/output/{profile}/{notebook}", "store": f"build/sweeps/{profile}"}
    own = {name: place for name, place in places.items() if name in NOTEBOOKS[notebook].model_fields}
    return common | own | (content[notebook] or {})


def _content(profile: str) -> dict[str, dict]:
    """The sections of a profile, on top of those of the profile that it extends."""
    path = PROFILES / f"{profile}.yaml"
    if not path.exists():
        raise UnknownNameError("profile", profile, available())
    own = yaml.safe_load(path.read_text())
    base = _content(own.pop("extends")) if "extends" in own else {}
    return base | {name: (base.get(name) or {}) | (values or {}) for name, values in own.items()}


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from the command line, each read as YAML.

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
            values[name] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            raise ParameterError(f"{text!r} is no YAML; put the value in quotes: {name}='\"…\"'") from None
    return values


def available() -> list[str]:
    """Names of the profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))
