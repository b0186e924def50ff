"""Chooses the model where none is named: only a domain's own, and only for texts that it can read."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vlm_rewards.labelers.domains.domain import Domain, domains
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER

_REMEDY = (
    "Give --model (model= in Python): a hub name such as openai/clip-vit-large-patch14, or the folder of a checkpoint"
)


def default_model(texts: Sequence[str]) -> str:
    """Returns the default model of the one domain that the texts are about, and whose default model knows their every word.

    A reference model knows the words of its domain and no others, so texts of another world have no default. Words that many worlds
    share, as in "open the drawer", do not make a text one of a domain: one of what its goals are about must be named.

    Args:
        texts: All texts that the model would read: prompts of goals, negatives, baselines.

    Raises:
        ValueError: No domain's default model knows all words of texts about it, or those of several domains do.
    """
    about = {name: domain for name, domain in domains().items() if domain.default_model is not None}
    named = {name: str(domain.default_model) for name, domain in about.items()}
    unknown = {name: unknown_words(model, texts) for name, model in named.items()}
    able = [name for name, words in unknown.items() if not words and _names_something(about[name], texts)]
    if len(able) == 1:
        return named[able[0]]
    if able:
        models = " and ".join(f"{named[name]} of the domain {name}" for name in able)
        raise ValueError(f"no model was named, and several could read these goals: got {models}. {_REMEDY}")
    reasons = "; ".join(
        f"{named[name]} of the domain {name} "
        + (f"does not know {', '.join(map(repr, words[:3]))}" if words else "finds nothing of its domain named")
        for name, words in unknown.items()
    )
    raise ValueError(
        f"no model was named, and no default reads these goals: {reasons or 'no domain has one'}. {_REMEDY}"
    )


def _names_something(domain: Domain, texts: Sequence[str]) -> bool:
    kinds = set().union(*(domain.kinds(goal) for goal in domain.goals(domain.banks[0])))
    things = {word for kind in kinds for word in kind.split()}
    return any(word in things for text in texts for word in text.split())


def unknown_words(model: str, texts: Sequence[str]) -> list[str]:
    """Returns the words of some texts that a model's tokenizer does not know, in order, each once.

    Args:
        model: Name of a reference model that ships with the package, or the folder of one that a domain of another package names.
        texts: The texts.
    """
    shipped = REFERENCE_FOLDER / model / "tokenizer.json"
    definition = (shipped if shipped.is_file() else Path(model, "tokenizer.json")).read_text(encoding="utf-8")
    tokenizer, name = Tokenizer.from_str(definition), json.loads(definition)["model"].get("unk_token")
    unknown = None if name is None else tokenizer.token_to_id(name)
    words = dict.fromkeys(word for text in texts for word in text.split())
    return [word for word in words if unknown in tokenizer.encode(word, add_special_tokens=False).ids]
