"""The successor of the embedded model, which draws scenes whose contents can be counted: its data, training, judge and measure.

Knows what `mini` knows. Must not be imported by any other room.
"""
