"""Access to the Hugging Face hub: whether it answers, without its warnings on the screen."""

import contextlib
from collections.abc import Iterator

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

_HUB_TIMEOUT_S = 5.0


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Holds back the hub's warnings, such as one line a retry: what fails is raised, with its remedy."""
    verbosity = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)


def hub_answers(hub_id: str) -> bool:
    """Whether the hub answers, be it that it has no such model. Loading itself would ask for half a minute before it gives up."""
    try:
        huggingface_hub.HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT_S)
    except HfHubHTTPError as error:
        return error.response.status_code < 500
    except Exception:  # no network, HF_HUB_OFFLINE, a timeout: the HTTP library's own errors, whichever it is
        return False
    return True
