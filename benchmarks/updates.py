"""IQL's updates a second against torchrl's DiscreteIQLLoss: the same network, the same batches, in turns, the median of the ratios.

    each     torchrl as it is documented: actor, critics and value are networks of their own, here an encoder and a head each
    shared   torchrl on features that one encoder makes, as ours shares it

Every update is loss, backward, fused Adam and the targets' step; ours also moves the mean of the weights that acts. One thread.

python benchmarks/updates.py [--output FOLDER]
"""

import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version

import torch
from noise_batches import BATCH_SIZE, CASES, random_batch
from report_result import machine, parse_arguments, write_result
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.objectives import DiscreteIQLLoss, SoftUpdate, ValueEstimators

from vlm_rewards.offline_rl.algorithms.iql import Iql, IqlSettings
from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.networks.heads import DiscreteCritic

ROUNDS = 7
UPDATES = 15


class Network(nn.Module):
    """A head, on the features of an encoder of its own if there is one."""

    def __init__(self, encoder: nn.Module | None, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = deepcopy(encoder), deepcopy(head)

    def forward(self, *seen: torch.Tensor) -> torch.Tensor:
        """What the head says of an observation and a goal, or of features."""
        return self.head(seen[0] if self.encoder is None else self.encoder(*seen))


class OneCritic(nn.Module):
    """One critic of the ensemble, which torchrl multiplies itself."""

    def __init__(self, width: int, num_actions: int) -> None:
        super().__init__()
        self.critic = DiscreteCritic(width, num_actions, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, F] to [B, M]."""
        return self.critic.values(features)[0]


def torchrl_update(agent: Iql, batch: Batch, *, shared: bool) -> Callable[[], object]:
    """One update by torchrl, of networks built like the agent's."""
    settings, spaces = agent.settings, agent.spaces
    assert spaces.num_actions is not None
    encoder = deepcopy(agent.parts["encoder"])
    own = None if shared else encoder
    keys = ["features"] if shared else ["observation", "goal"]
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(Network(own, agent.parts["policy"].logits), keys, ["logits"]),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical),
    )
    critic = Network(own, OneCritic(settings.width, spaces.num_actions))
    loss = DiscreteIQLLoss(
        actor,
        TensorDictModule(critic, keys, ["state_action_value"]),
        TensorDictModule(Network(own, agent.parts["value"]), keys, ["state_value"]),
        action_space="categorical",
        num_qvalue_nets=settings.num_critics,
        loss_function="l2",
        temperature=settings.inverse_temperature,
        expectile=settings.expectile,
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=settings.discount)
    targets = SoftUpdate(loss, tau=settings.polyak)
    weights = [weight for weight in loss.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights + list(encoder.parameters()) * shared, lr=settings.learning_rate, fused=True)
    ended = batch.masks[:, None] == 0

    def update() -> None:
        if shared:
            with torch.no_grad():
                next_seen = {"features": encoder(batch.next_observations, batch.goals)}
            seen = {"features": encoder(batch.observations, batch.goals)}
        else:
            seen = {"observation": batch.observations, "goal": batch.goals}
            next_seen = {"observation": batch.next_observations, "goal": batch.goals}
        following = {**next_seen, "reward": batch.rewards[:, None], "terminated": ended, "done": ended}
        out = loss(TensorDict({**seen, "action": batch.actions, "next": following}, [len(batch.rewards)]))
        optimiser.zero_grad()
        (out["loss_value"] + out["loss_actor"] + out["loss_qvalue"]).backward()
        optimiser.step()
        targets.step()

    return update


def updates_per_s(update: Callable[[], object]) -> float:
    """Of a few updates in a row."""
    started = time.perf_counter()
    for _ in range(UPDATES):
        update()
    return UPDATES / (time.perf_counter() - started)


def main() -> None:
    """Measures both kinds of observation and prints the ratios."""
    output = parse_arguments(__doc__).output
    torch.set_num_threads(1)
    results = {}
    for title, spaces in CASES.items():
        batch = random_batch(spaces)
        agent = Iql(IqlSettings(), spaces, seed=0)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda agent=agent, batch=batch: agent.update(batch),
            "torchrl, an encoder each": torchrl_update(agent, batch, shared=False),
            "torchrl, one encoder": torchrl_update(agent, batch, shared=True),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(1 + ROUNDS):
            for way, update in ways.items():
                rate = updates_per_s(update)
                if turn:  # the first is to warm up
                    rates[way].append(rate)
        ratios = {
            way: statistics.median(ours / rate for ours, rate in zip(rates["ours"], rates[way], strict=True))
            for way in ways
            if way != "ours"
        }
        results[title] = {
            "updates_per_s": {way: statistics.median(rate) for way, rate in rates.items()},
            "ratios": ratios,
            "limit": 1.0,
        }
        for way, ratio in ratios.items():
            print(
                f"{title}: {results[title]['updates_per_s']['ours']:.1f} updates/s, {ratio:.2f} times {way} (at least 1)",
                flush=True,
            )
    versions = {"torchrl": version("torchrl"), "tensordict": version("tensordict")}
    write_result(output, "updates", {"machine": machine() | versions, "batch_size": BATCH_SIZE, "results": results})


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
