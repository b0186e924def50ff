"""Networks on an agent's features: policies, values, ensembles of critics.

Shape letters: B batch, F width of the features, N critics, M discrete actions, A width of a continuous action, K actions drawn per
observation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_STD_RANGE = (-5.0, 2.0)
"""Range to which the logarithm of a standard deviation is clamped."""


class Head(nn.Module):
    """One hidden layer with LayerNorm on the features of the whole frame: those of cells, which may follow them, are left out.

    Args:
        width: F.
        out: Number of outputs.
        scale: Factor of the last layer's initial weights; small for a policy, so that it starts nearly uniform.
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
        """Maps [B, F or more] to [B, out]."""
        return self.out(torch.relu(self.norm(self.hidden(features[..., : self.hidden.in_features]))))


class EnsembleLinear(nn.Module):
    """N linear layers in one product.

    Args:
        num_members: N.
        inputs: Number of inputs.
        outputs: Number of outputs.
    """

    def __init__(self, num_members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(num_members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, B, inputs], or [B, inputs] for all members, to [N, B, outputs]."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """N layer normalisations, each with its own scale and shift.

    Args:
        num_members: N.
        width: Width of the input.
    """

    def __init__(self, num_members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_members, 1, width))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [N, B, width]."""
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
        """Maps [B, F] to the values of all actions, [N, B, M]."""
        return self.out(torch.relu(self.norm(self.hidden(features))))

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """Maps [B, F] and [B] int64 to the values of these actions, [N, B]."""
        return take_actions(self.values(features), actions)


class ContinuousCritic(nn.Module):
    """N critics of continuous actions, like `DiscreteCritic`; several actions per observation share its part of the hidden layer.

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
        """Maps [B, F] and [B, A] to [N, B], or [B, F] and [K, B, A], K actions per observation, to [N, K, B]."""
        first = self.hidden(features)
        several = actions.reshape(-1, *actions.shape[-2:])
        hidden = first.repeat(1, len(several), 1) + self.action(several.flatten(0, 1))
        values = self.out(torch.relu(self.norm(hidden)))
        return values.reshape(len(values), *actions.shape[:-1])


class CategoricalPolicy(nn.Module):
    """Policy for M discrete actions.

    Args:
        logits: Network that maps the features to [B, M]; at first near 0, so that the policy starts nearly uniform.
    """

    def __init__(self, logits: nn.Module) -> None:
        super().__init__()
        self.logits = logits

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Maps [B, F] and [B] int64 to log pi(a|s,g), [B]."""
        return take_actions(F.log_softmax(self.logits(features), dim=-1), actions)

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Maps [B, F] to actions [B] int64, drawn by `draw_actions`."""
        return draw_actions(self.logits(features), generator, temperature)


class GaussianPolicy(nn.Module):
    """Gaussian policy with a mean in [-1, 1] and one standard deviation per dimension; samples are clipped to [-1, 1].

    Not squashed, as in the official code of IQL: recorded actions at the ends of the range have a finite density.

    Args:
        width: F.
        action_size: A.
    """

    def __init__(self, width: int, action_size: int) -> None:
        super().__init__()
        self.mean = Head(width, action_size, scale=0.01)
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Maps [B, F] and [B, A] to log pi(a|s,g), [B]."""
        return gaussian_log_prob(actions, torch.tanh(self.mean(features)), self.log_std.clamp(*LOG_STD_RANGE))

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Maps [B, F] to actions [B, A]: the mean without a generator, else a sample with the deviation times the temperature."""
        mean = torch.tanh(self.mean(features)).cpu()
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + temperature * self.log_std.clamp(*LOG_STD_RANGE).exp().cpu() * noise).clamp(-1, 1)


class TanhGaussianPolicy(nn.Module):
    """Policy of SAC: a Gaussian whose samples are squashed into [-1, 1] by tanh (Haarnoja et al. 2018).

    Args:
        width: F.
        action_size: A.
    """

    def __init__(self, width: int, action_size: int) -> None:
        super().__init__()
        self.parameters_of = Head(width, 2 * action_size, scale=0.01)

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns actions for given noise, with gradients.

        Args:
            features: [B, F].
            noise: [..., B, A] standard normal.

        Returns:
            Actions [..., B, A] and log pi(a|s,g) [..., B] of the squashed actions.
        """
        mean, log_std = self._gaussian(features)
        before = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not overflow.
        squashing = 2 * (math.log(2) - before - F.softplus(-2 * before)).sum(-1)
        log_prob = (-0.5 * (noise**2 + math.log(2 * math.pi)) - log_std).sum(-1) - squashing
        return torch.tanh(before), log_prob

    def act(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Maps [B, F] to actions [B, A]: the squashed mean without a generator, else a sample with noise times the temperature."""
        mean, log_std = (x.cpu() for x in self._gaussian(features))
        if generator is None:
            return torch.tanh(mean)
        return torch.tanh(mean + temperature * log_std.exp() * torch.randn(mean.shape, generator=generator))

    def _gaussian(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.parameters_of(features).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


def take_actions(values: Tensor, actions: Tensor) -> Tensor:
    """Returns the values [..., B] of the actions [B] int64, of all values [..., B, M]."""
    index = actions[:, None].expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)


def draw_actions(logits: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
    """Returns actions [B] int64 on the CPU: drawn from softmax(logits / temperature), or the most likely without a generator."""
    if generator is None:
        return logits.argmax(-1).cpu()
    return torch.multinomial(torch.softmax(logits.cpu() / temperature, dim=-1), 1, generator=generator).squeeze(1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Returns the log density [...] of x [..., A] under independent Gaussians."""
    return (-0.5 * (((x - mean) / log_std.exp()) ** 2 + math.log(2 * math.pi)) - log_std).sum(-1)
