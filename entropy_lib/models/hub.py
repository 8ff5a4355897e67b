"""The Hugging Face Hub: its client tries for minutes before it gives up without a network."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session


def hub_answers() -> bool:
    """Whether the Hugging Face Hub can be reached, asked once with a short patience."""
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of whichever HTTP library the client is built on
        return False
    return True


@contextmanager
def offline_where_it_does_not_answer() -> Iterator[None]:
    """Within the block, without a network, libraries look into the local cache only.

    For those that cannot be told so by an argument of their own, as `local_files_only`.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
