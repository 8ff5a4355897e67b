"""What figures and tables call layers and columns."""

from collections.abc import Sequence

# Headings of the library's columns; others keep their name.
HEADINGS = {
    "tokens": "tokens N",
    "training_tokens": "training tokens T",
    "entropy": "entropy H (nats)",
    "entropy_ratio": "H / ln N",
    "logit_std": "spread of logits b",
    "of_freezing": "b / b_c",
    "beyond_freezing": "rows beyond freezing",
    "gaussian_error": "Eq. 5 less H",
    "same_keys_error": "H less native H + ln(N/T)",
    "height": "slope on ln height",
    "width": "slope on ln width",
    "edge_share": "mass on the edge",
    "edge_area": "tokens on the edge",
    "largest_times": "largest key / even share",
    "reach": "distance / even attention's",
    "moved": "largest key moves by (sides)",
    "share": "fraction of the change removed",
    "absolute_error": "mean abs. error",
    "finite_tokens": "too few tokens",
    "row_spread": "rows differ",
    "non_gaussian": "not Gaussian",
    "cumulants": "-κ3/3 - κ4/8",
    "outside": "outside the tolerance",
    "beyond_half_freezing": "b > b_c/2",
    "response_ratio": "Var_p(s) / b²",
    "excess_kurtosis": "excess kurtosis",
    "expected_maximum": "expected maximum",
    "effective_tokens": "keys count as",
    "mean_change": "mean change",
    "largest_change": "largest",
    "verdict": "Eq. 5 within the tolerance",
}
# shown without decimals, also where they are means
COUNTS = {"tokens", "training_tokens", "effective_tokens", "rows"}
PERCENT = {"share", "edge_share", "edge_area", "outside", "beyond_half_freezing"}
PERCENT |= {"mean_change", "largest_change"}


def short_layer(name: str) -> str:
    """A layer's name short enough for an axis: its first word and its numbers; a name without them whole.

    The number of the first of the blocks of one attention is left out.

    Example:
        >>> short_layer("mid_block.attentions.0.transformer_blocks.0.attn1")
        'mid 0'
        >>> short_layer("down_blocks.2.attentions.1.transformer_blocks.7.attn1")
        'down 2.1.7'
        >>> short_layer("down_blocks.3.attentions.1"), short_layer("single_transformer_blocks.12.attn")
        ('down 3.1', 'single 12')
    """
    parts = name.replace(".transformer_blocks.0.", ".").split(".")
    numbers, word = [part for part in parts if part.isdigit()], parts[0].strip("_").partition("_")[0]
    return f"{word} {'.'.join(numbers)}" if numbers and not word.isdigit() else name


def short_layers(names: Sequence[str]) -> list[str]:
    """Short names of layers; all of them whole where two would be called the same.

    Example:
        >>> short_layers(["blocks.0.attn", "blocks.1.attn"]), short_layers(["blocks.0.one", "blocks.0.two"])
        (['blocks 0', 'blocks 1'], ['blocks.0.one', 'blocks.0.two'])
    """
    short = [short_layer(name) for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)
