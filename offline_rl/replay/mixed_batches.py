"""Batches that are drawn partly from a recorded corpus and partly from what an agent has done since.

    ReplayData.sample   ──► round(offline_share * B) transitions ──┐
                                                                   ├──► a batch, the recorded ones first
    OnlineBuffer.sample ──► the rest of B ─────────────────────────┘

Shape letters as in `offline_rl.interfaces`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.offline_rl.replay.replay import ReplayData
from vlm_rewards.schemas.goals import DEFAULT_SHARES


def mixed_sample(
    offline: ReplayData,
    online: OnlineBuffer,
    batch_size: int,
    generator: np.random.Generator,
    *,
    offline_share: float = 0.5,
    mix: Sequence[float] = DEFAULT_SHARES,
) -> Batch:
    """Draws a batch of offline transitions, then online ones: the symmetric sampling of RLPD (Ball et al. 2023, section 4.1).

    Args:
        offline: Replay of the corpus.
        online: Buffer of the run.
        batch_size: B, of which round(offline_share * B) are offline.
        generator: Random generator.
        offline_share: Share of offline transitions, 0..1.
        mix: Shares of original, hindsight and negative goals in the offline part.

    Raises:
        ValueError: The share is out of range, the two hold different observations or actions, or there is nothing to sample yet.
    """
    if not 0 <= offline_share <= 1:
        raise ValueError(f"offline_share must be from 0 to 1, got {offline_share}. 0.5 is usual.")
    offline.spaces.check_equal(online.spaces, "the online buffer")
    num_offline = round(offline_share * batch_size)
    if num_offline == batch_size:
        return offline.sample(batch_size, generator, mix)
    recent = online.sample(batch_size - num_offline, generator)
    if num_offline == 0:
        return recent
    pairs = zip(offline.sample(num_offline, generator, mix), recent, strict=True)
    return Batch._make(None if old is None or new is None else torch.cat([old, new]) for old, new in pairs)
