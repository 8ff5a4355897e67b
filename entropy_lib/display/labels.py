"""Facts about labels that figures and tables share: short names of layers, and how metrics are shown."""

# Published KID and CMMD are 1000 times the distance.
SHOWN_TIMES = {"KID": 1000, "CMMD": 1000}
HIGHER_IS_BETTER = {"FD": False, "KID": False, "CMMD": False, "CLIP score": True}


def short_layer(name: str) -> str:
    """A layer's name short enough for an axis: "down_blocks.0.attentions.1…attn1" → "down 0.1".

    Example:
        >>> short_layer("mid_block.attentions.0.transformer_blocks.0.attn1")
        'mid 0'
    """
    parts = name.split(".")
    numbers = (
        [part for part in parts[: parts.index("transformer_blocks")] if part.isdigit()] if "transformer_blocks" in parts else []
    )
    return f"{parts[0].split('_')[0]} {'.'.join(numbers)}".strip() if numbers else name
