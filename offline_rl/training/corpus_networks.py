"""Networks that fit the world a corpus was recorded in: what is not set is chosen by what the domain states.

    --env, else the environments that the corpus was recorded in ──► domain ──► agent_facts(frame size)
                                                                                  │
    frames drawn of tiles          one layer per tile, of the tiles' size  ◄──────┤
    frames of any other kind       convolutions                            ◄──────┤
    actions that are cells         one head for all cells                  ◄──────┘

Nothing depends on the name of a domain. A corpus of no domain has frames of any kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vlm_rewards.labelers.domains.agent_facts import AgentFacts, agent_facts_of
from vlm_rewards.labelers.domains.domain import Domain, find_domain
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.networks.encoder import NatureCells, NetworkSettings


def domain_of_corpus(envs: Sequence[str], recorded_envs: Sequence[str]) -> Domain | None:
    """Returns the one domain of the environments that are named, else of those that a corpus was recorded in; None without one.

    Args:
        envs: Environments that the agent is to be evaluated in; they decide if there are any.
        recorded_envs: Environments that the corpus was recorded in.
    """
    found = [find_domain(name) for name in envs or recorded_envs]
    return found[0] if found and found[0] is not None and all(one is found[0] for one in found) else None


def num_actions_of(domain: Domain | None) -> int | None:
    """Returns the number of actions that a domain states; None where it states none."""
    return None if domain is None else agent_facts_of(domain, domain.frame_sizes[0]).num_actions


def fit_networks(given: Mapping[str, Any], spaces: Spaces, domain: Domain | None) -> dict[str, Any]:
    """Returns the settings of an algorithm, with those of its networks that were not given chosen by what the domain states.

    Args:
        given: Settings of the algorithm that were given, by name.
        spaces: Observations and actions of the agent.
        domain: Domain of the corpus; None for no domain.
    """
    if spaces.observation != "frames":
        return dict(given)
    height, width = spaces.observation_shape[:2]
    facts = AgentFacts() if domain is None else agent_facts_of(domain, (height, width))
    chosen: dict[str, Any] = {}
    tile = _tile_size(facts.frame_grid, height, width)
    if tile is None:
        chosen["encoder"] = "nature" if min(height, width) >= NatureCells.least_side else "impala"
    elif tile != NetworkSettings().tile_size:
        chosen["tile_size"] = tile
    if facts.action_grid is not None and spaces.num_actions is not None:
        chosen["action_grid"] = "x".join(map(str, facts.action_grid))
    if {"encoder", "tile_size"} & given.keys():  # the two belong together
        chosen = {name: value for name, value in chosen.items() if name not in ("encoder", "tile_size")}
    return {**chosen, **given}


def _tile_size(grid: tuple[int, int] | None, height: int, width: int) -> int | None:
    """Returns the side of the square tiles that a frame is drawn of, in pixels; None where it is not drawn of such tiles."""
    if grid is None or height % grid[0] or width % grid[1] or height // grid[0] != width // grid[1]:
        return None
    return height // grid[0]
