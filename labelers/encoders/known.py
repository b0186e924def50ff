"""The one list of encoders, and the loader that picks from it and from what other packages register."""

from vlm_rewards.labelers.encoders.encoder import EXTENSION_GROUP, Encoder, EncoderKind
from vlm_rewards.schemas.extensions import load_extensions


def _load_dual_encoder(name: str, *, precision: str, batch_size: int, device: str) -> Encoder:
    from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder  # imports torch and transformers

    return DualEncoder.load(name, precision=precision, batch_size=batch_size, device=device)


ENCODERS: tuple[EncoderKind, ...] = (
    EncoderKind("transformers", lambda name: True, _load_dual_encoder),  # last: it says why a name is nobody's
)
"""Encoders of this package; the first that recognizes a name loads it, after those of other packages were asked."""


def find_encoder_kind(name: str) -> EncoderKind:
    """Returns the kind of encoder that a model's name or folder is of.

    Args:
        name: The model as the user named it.

    Raises:
        ValueError: Two registered kinds recognize it, or what is registered is no `EncoderKind`.
    """
    registered = load_extensions(EXTENSION_GROUP)
    for key, kind in registered.items():
        if not isinstance(kind, EncoderKind):
            raise ValueError(
                f"entry point {key!r} of {EXTENSION_GROUP} is no EncoderKind: got {type(kind).__name__}. Fix the package that "
                f"registers it, or uninstall it."
            )
    found = [kind for kind in registered.values() if isinstance(kind, EncoderKind) and kind.recognizes(name)]
    if len(found) > 1:
        names = ", ".join(kind.name for kind in found)
        raise ValueError(f"several encoders recognize the model {name!r}: got {names}. Uninstall all but one.")
    return found[0] if found else next(kind for kind in ENCODERS if kind.recognizes(name))


def load_encoder(name: str, *, precision: str, batch_size: int, device: str) -> Encoder:
    """Loads the encoder that a model's name stands for.

    Args:
        name: A reference model, a local folder, a hub id, or whatever a registered kind recognizes.
        precision: "auto", "float32" or "bfloat16".
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: No encoder of that name can be loaded; the message says why.
    """
    return find_encoder_kind(name).load(name, precision=precision, batch_size=batch_size, device=device)
