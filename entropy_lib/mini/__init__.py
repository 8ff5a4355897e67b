"""How the embedded models were made: data (`sprites`, `scenes`), training (`train`), quality (`evaluate`), and their `judge`.

Knows pictures, training and the rooms that measure; must not know a notebook, and only `sweep` knows it: scenes and the judge.
"""
