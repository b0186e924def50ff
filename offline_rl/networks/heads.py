"""What reads an agent's features: policies, values, ensembles of critics.

Shape letters: B batch, F width of the features, N critics, M discrete actions, A width of a continuous action, K actions drawn an
observation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_STD_RANGE = (-5.0, 2.0)
"""Within which the logarithm of a standard deviation is held."""


class Head(nn.Module):
    """One hidden layer with LayerNorm on the features.

    Args:
        width: F.
        out: Outputs.
        scale: Factor of the last layer's initial weights: small for a policy, so that it starts out undecided.
    """

    def __init__(self, width: int, out: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)
        with torch.no_grad():
            self.out.weight.mul_(scale)
            self.out.bias.mul_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] to [B, out]."""
        return self.out(torch.relu(self.norm(self.hidden(features))))


class EnsembleLinear(nn.Module):
    """N linear layers in one product.

    Args:
        num_members: N.
        inputs: Inputs.
        outputs: Outputs.
    """

    def __init__(self, num_members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(num_members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, inputs] or, the same for all members, [B, inputs] to [N, B, outputs]."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """N layer normalisations, each with a scale and a shift of its own.

    Args:
        num_members: N.
        width: Width of what is normalised.
    """

    def __init__(self, num_members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_members, 1, width))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, width], of the same shape."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class DiscreteCritic(nn.Module):
    """N critics of M discrete actions, each with one hidden layer with LayerNorm (RLPD, Ball et al. 2023).

    Args:
        width: F.
        num_actions: M.
        num_critics: N.
    """

    def __init__(self, width: int, num_actions: int, num_critics: int) -> None:
        super().__init__()
        self.hidden = EnsembleLinear(num_critics, width, width)
        self.norm = EnsembleNorm(num_critics, width)
        self.out = EnsembleLinear(num_critics, width, num_actions)

    def values(self, features: Tensor) -> Tensor:
        """[B, F] to the values of all actions, [N, B, M]."""
        return self.out(torch.relu(self.norm(self.hidden(features))))

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """[B, F] and [B] int64 to the values of these actions, [N, B]."""
        return take_actions(self.values(features), actions)


class ContinuousCritic(nn.Module):
    """N critics of continuous actions, as `DiscreteCritic`; several actions an observation share its part of the hidden layer.

    Args:
        width: F.
        action_size: A.
        num_critics: N.
    """

    def __init__(self, width: int, action_size: int, num_critics: int) -> None:
        super().__init__()
        self.hidden = EnsembleLinear(num_critics, width, width)
        self.action = EnsembleLinear(num_critics, action_size, width)
        self.norm = EnsembleNorm(num_critics, width)
        self.out = EnsembleLinear(num_critics, width, 1)

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """[B, F] and [B, A] to [N, B]; or [B, F] and [K, B, A], K actions an observation, to [N, K, B]."""
        first = self.hidden(features)
        several = actions.reshape(-1, *actions.shape[-2:])
        hidden = first.repeat(1, len(several), 1) + self.action(several.flatten(0, 1))
        values = self.out(torch.relu(self.norm(hidden)))
        return values.reshape(len(values), *actions.shape[:-1])


class CategoricalPolicy(nn.Module):
    """A policy of M discrete actions.

    Args:
        width: F.
        num_actions: M.
    """

    def __init__(self, width: int, num_actions: int) -> None:
        super().__init__()
        self.logits = Head(width, num_actions, scale=0.01)

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """[B, F] and [B] int64 to log pi(a|s,g), [B]."""
        return take_actions(F.log_softmax(self.logits(features), dim=-1), actions)

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """[B, F] to actions [B] int64, as `draw_actions` draws them."""
        return draw_actions(self.logits(features), generator, temperature)


class GaussianPolicy(nn.Module):
    """A Gaussian over actions in [-1, 1] with a mean in that range and one standard deviation a dimension; samples are clipped.

    Not squashed, as in IQL's official code: recorded actions at the ends of the range have a finite density.

    Args:
        width: F.
        action_size: A.
    """

    def __init__(self, width: int, action_size: int) -> None:
        super().__init__()
        self.mean = Head(width, action_size, scale=0.01)
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """[B, F] and [B, A] to log pi(a|s,g), [B]."""
        return gaussian_log_prob(actions, torch.tanh(self.mean(features)), self.log_std.clamp(*LOG_STD_RANGE))

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """[B, F] to actions [B, A]; the mean without a generator, else its standard deviation times the temperature."""
        mean = torch.tanh(self.mean(features)).cpu()
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + temperature * self.log_std.clamp(*LOG_STD_RANGE).exp().cpu() * noise).clamp(-1, 1)


class TanhGaussianPolicy(nn.Module):
    """SAC's policy: a Gaussian whose samples tanh squashes into [-1, 1] (Haarnoja et al. 2018).

    Args:
        width: F.
        action_size: A.
    """

    def __init__(self, width: int, action_size: int) -> None:
        super().__init__()
        self.parameters_of = Head(width, 2 * action_size, scale=0.01)

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of given noise, through which gradients flow.

        Args:
            features: [B, F].
            noise: [..., B, A] standard normal.

        Returns:
            Actions [..., B, A] and log pi(a|s,g) [..., B], with the density of the squashed action.
        """
        mean, log_std = self._gaussian(features)
        before = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not overflow.
        squashing = 2 * (math.log(2) - before - F.softplus(-2 * before)).sum(-1)
        log_prob = (-0.5 * (noise**2 + math.log(2 * math.pi)) - log_std).sum(-1) - squashing
        return torch.tanh(before), log_prob

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """[B, F] to actions [B, A]; the squashed mean without a generator, else noise is times the temperature."""
        mean, log_std = (x.cpu() for x in self._gaussian(features))
        if generator is None:
            return torch.tanh(mean)
        return torch.tanh(mean + temperature * log_std.exp() * torch.randn(mean.shape, generator=generator))

    def _gaussian(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.parameters_of(features).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


def take_actions(values: Tensor, actions: Tensor) -> Tensor:
    """Values [..., B, M] of the actions [B] int64 alone, [..., B]."""
    index = actions[:, None].expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)


def draw_actions(logits: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
    """Actions [B] int64 on the CPU: from softmax(logits / temperature) by the generator, or the most likely without one."""
    if generator is None:
        return logits.argmax(-1).cpu()
    return torch.multinomial(torch.softmax(logits.cpu() / temperature, dim=-1), 1, generator=generator).squeeze(1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of x [..., A] under independent Gaussians, summed over A: [...]."""
    return (-0.5 * (((x - mean) / log_std.exp()) ** 2 + math.log(2 * math.pi)) - log_std).sum(-1)
