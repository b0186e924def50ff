"""The one list of encoders, and the loader that picks from it and from what other packages register."""

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE, EXTENSION_GROUP, Encoder, EncoderKind
from vlm_rewards.schemas.extensions import load_extensions


def _load_dual_encoder(
    name: str, *, precision: str, batch_size: int, device: str, engine: str = DEFAULT_ENGINE
) -> Encoder:
    from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder  # imports torch and transformers

    return DualEncoder.load(name, precision=precision, batch_size=batch_size, device=device, engine=engine)


ENCODERS: tuple[EncoderKind, ...] = (
    # Last: it says why a name is nobody's.
    EncoderKind("transformers", lambda name: True, _load_dual_encoder, _load_dual_encoder),
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


def load_encoder(name: str, *, precision: str, batch_size: int, device: str, engine: str = DEFAULT_ENGINE) -> Encoder:
    """Loads the encoder that a model's name stands for.

    Args:
        name: A reference model, a local folder, a hub id, or whatever a registered kind recognizes.
        precision: "auto", "float32" or "bfloat16".
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".
        engine: One of `labelers.encoders.encoder.ENGINES`; a kind with an engine of its own is loaded for the default alone.

    Raises:
        ValueError: No encoder of that name can be loaded, or not on that engine; the message says why.
    """
    kind = find_encoder_kind(name)
    if engine == DEFAULT_ENGINE:
        return kind.load(name, precision=precision, batch_size=batch_size, device=device)
    if kind.load_on is None:
        raise ValueError(
            f"{name} is computed by its encoder's own library ({kind.name}): got the engine {engine!r}. Leave the engine out."
        )
    return kind.load_on(name, precision=precision, batch_size=batch_size, device=device, engine=engine)
