"""Figures and tables: a DataFrame in, axes or a formatted table out.

Knows tables and the laws of `theory`; must not import a model, nor anything that does.
"""
