"""Drawing and measuring: images from a pipeline, and entropy over sizes, rules and prompts in tidy tables.

Knows pipelines, the patch and the probes; must not know notebooks, files or figures.
"""
