"""How the embedded model was made: its data (`dataset`), its training (`train`) and its measured quality (`evaluate`).

Knows pictures, training and the rooms that measure; must not know a notebook, and only `sweep.references` knows it.
"""
