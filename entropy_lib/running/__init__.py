"""Running notebooks and sweeps: parameters, profiles, runner, site, doctor, command line.

Knows every other room; must not be known by any of them.
"""
