"""How sure a number is: intervals, the jackknife, and fits of entropy on ln N.

Knows numbers and tables; must not know where they come from.
"""
