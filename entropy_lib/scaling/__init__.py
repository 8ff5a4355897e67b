"""The scale patch: rules, written as one string, and what puts one into a model and takes it out again.

Knows rules and where a network's queries are; must not know what is measured or drawn with it.
"""
