"""List of the algorithms by name, and how an agent is built."""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import torch

from vlm_rewards.offline_rl.algorithms.bc import Bc, BcSettings, FilteredBc
from vlm_rewards.offline_rl.algorithms.cql import CalQlSettings, Cql, CqlSettings
from vlm_rewards.offline_rl.algorithms.iql import Iql, IqlSettings
from vlm_rewards.offline_rl.algorithms.learner import Learner, LearnerSettings
from vlm_rewards.offline_rl.algorithms.sac import Sac, SacCalQlSettings, SacSettings
from vlm_rewards.offline_rl.interfaces import Spaces

ALGORITHMS: dict[str, tuple[type[LearnerSettings], type[Learner]]] = {
    "bc": (BcSettings, Bc),
    "filtered-bc": (BcSettings, FilteredBc),
    "iql": (IqlSettings, Iql),
    "cql": (CqlSettings, Cql),
    "cal-ql": (CalQlSettings, Cql),
    "rlpd": (SacSettings, Sac),
    "sac-cal-ql": (SacCalQlSettings, Sac),
}
"""Settings and agent class of each algorithm. bc, filtered-bc and iql support discrete and continuous actions, cql and cal-ql
discrete ones, rlpd and sac-cal-ql continuous ones."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def algorithm_settings(name: str, fields: Mapping[str, Any]) -> LearnerSettings:
    """Returns the settings of an algorithm.

    Args:
        name: A name of `ALGORITHMS`.
        fields: Values by name that differ from the defaults, such as read from JSON or from a command line.

    Raises:
        ValueError: There is no such algorithm or field, or a value has another type than its default or is out of its range.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {name!r}. Choose one of them.")
    settings_class, _ = ALGORITHMS[name]
    known = settings_class.__dataclass_fields__
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(
            f"settings of {name} must be among {', '.join(known)}, got {', '.join(unknown)}. Leave them out."
        )
    for field, hint in get_type_hints(settings_class).items():
        kinds = get_args(hint) or (hint,)
        if field in fields and type(fields[field]) not in kinds and not (float in kinds and type(fields[field]) is int):
            raise ValueError(
                f"settings of {name} must be of their defaults' types, got {field} {fields[field]!r}. Give "
                f"{' or '.join(_WORDS[kind] for kind in kinds)}."
            )
    return settings_class(**fields)


def build_agent(
    name: str,
    settings: LearnerSettings | Mapping[str, Any] | None,
    spaces: Spaces,
    seed: int,
    device: str | torch.device = "cpu",
) -> Learner:
    """Builds an agent.

    Args:
        name: A name of `ALGORITHMS`.
        settings: Settings of that algorithm, or its fields by name, such as read from JSON; None for the defaults.
        spaces: Observations and actions of the agent.
        seed: Seed of the weights and of the draws of updates. The same seed gives the same agent.
        device: Device on which the agent learns.

    Returns:
        An untrained agent.

    Raises:
        ValueError: There is no such algorithm, the settings are those of another one or have unknown fields, or the algorithm does
            not fit the spaces.
    """
    if settings is None or isinstance(settings, Mapping):
        settings = algorithm_settings(name, settings or {})
    settings_class, agent_class = ALGORITHMS[name]
    if type(settings) is not settings_class:
        raise ValueError(
            f"settings of {name} must be {settings_class.__name__}, got {type(settings).__name__}. Use ALGORITHMS[{name!r}][0]."
        )
    return agent_class(settings, spaces, seed=seed, device=device)
