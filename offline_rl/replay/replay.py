"""An indexable, memory-mapped replay of relabelled trajectories, from which batches of goal-conditioned transitions are drawn.

    relabelled/ ─┐
    embeddings/ ─┼─► build_replay ──► replay/ ──► open_replay ──► ReplayData ──► sample ──► Batch
    text tower ──┘   once, decodes     arrays, goals, meta.json    maps files      mix of kinds

Which reward belongs to which transition, for goal k of an episode with start 1, stop 4 and a success:

    frame         o_0   o_1   o_2   o_3   o_4   o_5        observations.npy through rows.npy
    action          a_0   a_1   a_2   a_3   a_4
    rewards[k]      r_0   r_1   r_2   r_3   r_4            r_t looks at o_(t+1)
                        |<-- segment k -->|

    transition    observation  action  reward  next observation  mask  return
        0            o_1        a_1     r_1          o_2           1    r_1 + d r_2 + d^2 r_3
        1            o_2        a_2     r_2          o_3           1    r_2 + d r_3
        2            o_3        a_3     r_3          o_4           0    r_3        (1 where the segment is no success)

With a frame_stack of n, the observation is of n frames, the last one at the right; before the first frame of the episode (not of
the segment) that one is repeated, as in a live episode. Transition 0 above, with a frame_stack of 3:

    observation   o_0 o_0 o_1        next observation   o_0 o_1 o_2

r_0 and r_4 are in rewards.npy and are never sampled. The mask is 0 only at a success: a segment that ends because the recording
ends is bootstrapped, and its return is what was recorded.

Transitions are numbered kind by kind, original first, then hindsight, then negative, and in the order of the corpus within a kind.
A draw chooses a kind with the probabilities of the mix, then a transition uniformly within the kind:

    transition    0 ............ n_0 ................ n_1 ............ N
    kind          |  original     |  hindsight         |  negative     |
    segment       | s_0 | s_1 | ..  each as long as its steps: a number is found among the bounds of the segments

Shape letters as in `offline_rl.interfaces`; N transitions, M segments, G goals.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vlm_rewards.offline_rl.interfaces import Batch, GoalTexts, Spaces
from vlm_rewards.offline_rl.replay.meta import read_replay_meta
from vlm_rewards.offline_rl.replay.replay_files import check_replay_files, returns_file
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.goals import DEFAULT_SHARES, GOAL_KINDS

DEFAULT_DISCOUNT = 0.99


class Segment(NamedTuple):
    """One goal of one episode as an episode of its own, for exports.

    Attributes:
        episode_id: Id of the recorded episode.
        goal: Number of the goal.
        kind: "original", "hindsight" or "negative".
        observations: [L + 1, ...], from before the first step to after the last.
        states: [L + 1, S] float32, or None.
        actions: [L] int64 or [L, A] float32.
        rewards: [L] float32.
        terminated: Whether the last step achieves the goal; if not, the segment was cut off there (a truncation).
    """

    episode_id: str
    goal: int
    kind: str
    observations: np.ndarray
    states: np.ndarray | None
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool


def open_replay(
    folder: str | Path,
    *,
    exclude_goals: Sequence[str] = (),
    discount: float = DEFAULT_DISCOUNT,
    num_actions: int | None = None,
    use_states: bool = True,
    frame_stack: int = 1,
) -> "ReplayData":
    """Opens a replay that `replay.builder.build_replay` has made; see `ReplayData` for arguments and errors.

    All arrays are read once, to refuse what has changed since it was written.
    """
    check_replay_files(Path(folder))
    return ReplayData(
        folder,
        exclude_goals=exclude_goals,
        discount=discount,
        num_actions=num_actions,
        use_states=use_states,
        frame_stack=frame_stack,
    )


class ReplayData:
    """A replay on disk, and which part of it is sampled. Pickles as its path, so that workers map the same files.

    Args:
        folder: Folder that `build_replay` has made.
        exclude_goals: Ids of held-out goals, whose segments are never sampled.
        discount: Discount factor of the returns, which are written beside the arrays once per discount.
        num_actions: Number of discrete actions of the environment; None for the highest recorded action plus one.
        use_states: Whether to give the states, if some were recorded. Live environments have none.
        frame_stack: Number of frames in an observation; see the module's picture.

    Attributes:
        spaces: Observations and actions of an agent.
        goals: The G goals; `Batch.goals` are rows of their embeddings.
        fingerprint: Fingerprint of the samples: what the folder was made from, and the held-out goals.
        segments: [M] records of `writer.SEGMENT`, those that are sampled, kind by kind.
        camera: Camera of the frames; None if the folder is older than this record.
        frame_shape: (H, W, 3) of the corpus's frames, also if the observations are their embeddings; None if these are older than
            this record.

    Raises:
        ValueError: The folder holds no finished replay, a goal to exclude is unknown, nothing is left, there is no success or no
            reward above 0, or there are fewer actions than were recorded.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        exclude_goals: Sequence[str] = (),
        discount: float = DEFAULT_DISCOUNT,
        num_actions: int | None = None,
        use_states: bool = True,
        frame_stack: int = 1,
    ) -> None:
        self._folder = Path(folder)
        self._options: dict = {
            "exclude_goals": tuple(sorted(exclude_goals)),
            "discount": discount,
            "num_actions": num_actions,
            "use_states": use_states,
            "frame_stack": frame_stack,
        }
        meta = read_replay_meta(self._folder)
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must be from 0 to 1, got {discount}. 0.99 is a good start.")
        self.goals = GoalTexts(
            ids=tuple(meta["goals"]["ids"]),
            texts=tuple(meta["goals"]["texts"]),
            embeddings=np.load(self._folder / "goals.npy"),
            model=meta["goals"]["model"],
            fingerprint=Fingerprint(meta["goals"]["fingerprint"]),
        )
        unknown = sorted(set(exclude_goals) - set(self.goals.ids))
        if unknown:
            raise ValueError(
                f"goals to exclude must be goals of the replay, got {unknown[0]!r}. Check the ids against {self._folder}."
            )
        self.fingerprint = Fingerprint({**meta["fingerprint"], "excluded_goals": sorted(exclude_goals)})
        self._observations, self._rows, self._actions, self._rewards = (
            np.load(self._folder / f"{name}.npy", mmap_mode="r")
            for name in ("observations", "rows", "actions", "rewards")
        )
        states = self._folder / "states.npy"
        self._states = np.load(states, mmap_mode="r") if use_states and states.is_file() else None
        every = np.load(self._folder / "segments.npy")
        self._written = meta["written"]
        self.segments = self._sampled(every)
        self._returns = np.load(returns_file(self._folder, every, self._rewards, discount), mmap_mode="r")
        lengths = self.segments["length"].astype(np.int64)
        self._bounds = np.concatenate([[0], np.cumsum(lengths)])
        self._kind_bounds = self._bounds[np.searchsorted(self.segments["kind"], np.arange(len(GOAL_KINDS) + 1))]
        self.spaces = self._spaces(num_actions)
        self.camera: str | None = self._written.get("camera")
        shape = self._written.get("frame_shape")
        if shape is None and self.spaces.observation == "frames":
            shape = self.spaces.observation_shape
        self.frame_shape: tuple[int, ...] | None = None if shape is None else tuple(shape)

    def __len__(self) -> int:
        """Returns the number of transitions."""
        return int(self._bounds[-1])

    def __reduce__(self) -> tuple:
        return _reopen, (self._folder, self._options)

    @property
    def labels_fingerprint(self) -> Fingerprint:
        """Fingerprint of the labels: what the rewards depend on. A live labeler must have the same."""
        relabelled = self.fingerprint.parts["relabelled"]
        assert isinstance(relabelled, dict)
        return Fingerprint(relabelled["labels"])

    @property
    def statistics(self) -> dict[str, object]:
        """Counts of what there is to learn from.

        Returns:
            {"episodes", "frames", "distinct_observations", "kinds": {kind: {"segments", "transitions", "successes" (segments that
            end in success), "reward_share" (share of rewards above 0)}}}; the first three for the whole folder, the kinds without
            the held-out goals.
        """
        kinds = {}
        for number, kind in enumerate(GOAL_KINDS):
            of_kind = self.segments[self.segments["kind"] == number]
            transitions = int(of_kind["length"].sum())
            kinds[kind] = {
                "segments": len(of_kind),
                "transitions": transitions,
                "successes": int(of_kind["terminated"].sum()),
                "reward_share": int(of_kind["rewarded"].sum()) / max(transitions, 1),
            }
        return {
            "episodes": self._written["num_episodes"],
            "frames": self._written["num_frames"],
            "distinct_observations": self._written["num_observations"],
            "kinds": kinds,
        }

    def mix_in_force(self, mix: Sequence[float] = DEFAULT_SHARES) -> dict[str, float]:
        """Returns the mix over the kinds that the replay has, normalised to sum to 1.

        Args:
            mix: Shares of original, hindsight and negative goals.

        Raises:
            ValueError: There are not three shares of at least 0, or none is for a kind that the replay has.
        """
        shares = np.asarray(mix, dtype=np.float64)
        if shares.shape != (len(GOAL_KINDS),) or not (shares >= 0).all() or not np.isfinite(shares).all():
            raise ValueError(
                f"mix must be a share of at least 0 for each of {', '.join(GOAL_KINDS)}, got {tuple(mix)}. Give "
                f"three shares, such as {DEFAULT_SHARES}."
            )
        shares = np.where(np.diff(self._kind_bounds) > 0, shares, 0.0)
        if not shares.sum() > 0:
            there = [kind for kind, count in zip(GOAL_KINDS, np.diff(self._kind_bounds), strict=True) if count]
            raise ValueError(
                f"mix must have a share of a kind that the replay has ({', '.join(there)}), got {tuple(mix)}. Give "
                f"one to such a kind."
            )
        return dict(zip(GOAL_KINDS, (shares / shares.sum()).tolist(), strict=True))

    def check_mix(self, mix: Sequence[float] = DEFAULT_SHARES) -> None:
        """Refuses a mix from which nothing can be learned.

        Raises:
            ValueError: The kinds that it draws have no success or no reward above 0, or see `mix_in_force`.
        """
        drawn = [kind for kind, share in self.mix_in_force(mix).items() if share > 0]
        segments = self.segments[np.isin(self.segments["kind"], [GOAL_KINDS.index(kind) for kind in drawn])]
        successes, rewarded = _count_positive(segments)
        if not successes or not rewarded:
            raise ValueError(
                f"mix must draw successes and rewards above 0, got {tuple(mix)}: {', '.join(drawn)} goals have {successes} "
                f"successes in {len(segments)} segments and {rewarded} rewards above 0. Give a share to a kind "
                "that has some, and another output folder."
            )

    @property
    def action_range(self) -> tuple[float, float]:
        """The lowest and the highest number in any recorded action; NaN if one is NaN."""
        return float(self._actions.min()), float(self._actions.max())

    def sample(self, batch_size: int, generator: np.random.Generator, mix: Sequence[float] = DEFAULT_SHARES) -> Batch:
        """Draws transitions with replacement, each under the goal that it is stored with.

        Args:
            batch_size: B.
            generator: Random generator; its state is `generator.bit_generator.state`, a plain dict to save.
            mix: Shares of original, hindsight and negative goals, normalised by `mix_in_force`.

        Raises:
            ValueError: See `mix_in_force`.
        """
        shares = np.cumsum(list(self.mix_in_force(mix).values()))
        kinds = np.searchsorted(shares / shares[-1], generator.random(batch_size), side="right")
        return self.gather(generator.integers(self._kind_bounds[kinds], self._kind_bounds[kinds + 1]))

    def gather(self, indices: np.ndarray) -> Batch:
        """Returns the transitions of these numbers.

        Args:
            indices: [B] int, 0..N-1.

        Raises:
            IndexError: A number is out of range.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"indices must be from 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        numbers = np.searchsorted(self._bounds, indices, side="right") - 1
        segments = self.segments[numbers]
        steps = indices - self._bounds[numbers]
        frames, rewards = segments["frame"] + steps, segments["reward"] + steps
        first = segments["frame"] - segments["start"]  # of the episode
        achieved = segments["terminated"] & (steps == segments["length"] - 1)
        return Batch(
            observations=self._seen(frames, first),
            actions=_tensor(self._actions[frames]),
            rewards=_tensor(self._rewards[rewards]),
            next_observations=self._seen(frames + 1, first),
            masks=_tensor(np.where(achieved, np.float32(0), np.float32(1))),
            goals=_tensor(self.goals.embeddings[segments["goal"]]),
            returns=_tensor(self._returns[rewards]),
            successes=_tensor(segments["terminated"]),
            states=None if self._states is None else _tensor(self._states[frames]),
            next_states=None if self._states is None else _tensor(self._states[frames + 1]),
        )

    def _seen(self, frames: np.ndarray, first: np.ndarray) -> torch.Tensor:
        """Returns what is seen at [B] frames of episodes that begin at [B] frames."""
        ago = range(self.spaces.frame_stack - 1, -1, -1)
        parts = [self._observations[self._rows[np.maximum(frames - steps, first)]] for steps in ago]
        return _tensor(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))

    def segment(self, number: int) -> Segment:
        """Returns segment 0..M-1 as an episode of its own, whose observations are single frames."""
        record = self.segments[number]
        length = int(record["length"])
        frames = slice(record["frame"], record["frame"] + length + 1)
        steps = slice(record["frame"], record["frame"] + length)
        return Segment(
            episode_id=self.episode_ids[record["episode"]],
            goal=int(record["goal"]),
            kind=GOAL_KINDS[record["kind"]],
            observations=np.asarray(self._observations[self._rows[frames]]),
            states=None if self._states is None else np.array(self._states[frames]),
            actions=np.array(self._actions[steps]),
            rewards=np.array(self._rewards[record["reward"] : record["reward"] + length]),
            terminated=bool(record["terminated"]),
        )

    @functools.cached_property
    def episode_ids(self) -> list[str]:
        """Ids of the recorded episodes."""
        with (self._folder / "episodes.jsonl").open(encoding="utf-8") as file:
            return [json.loads(line)[0] for line in file]

    def _sampled(self, every: np.ndarray) -> np.ndarray:
        excluded = [self.goals.ids.index(goal_id) for goal_id in self._options["exclude_goals"]]
        segments = every[~np.isin(every["goal"], excluded)]
        if not len(segments):
            raise ValueError("a replay must have a goal to learn, got all of them excluded. Exclude fewer goals.")
        successes, rewarded = _count_positive(segments)
        if not successes or not rewarded:
            raise ValueError(
                f"a replay must have a success and a reward above 0 to learn from, got {successes} successes in {len(segments)} "
                f"segments and {rewarded} rewards above 0 in {segments['length'].sum()} transitions: the reward is never positive. "
                f"Lower the threshold of the labels, take goals that the recorded episodes achieve, or record better ones."
            )
        return segments[np.argsort(segments["kind"], kind="stable")]

    def _spaces(self, num_actions: int | None) -> Spaces:
        max_action = self._written["max_action"]
        if num_actions is not None and max_action is None:
            raise ValueError(f"num_actions must be None where actions are continuous, got {num_actions}. Leave it out.")
        if num_actions is not None and num_actions <= max_action:
            raise ValueError(
                f"num_actions must be above the highest recorded action, {max_action}, got {num_actions}. Give the number of the "
                f"environment that the corpus was recorded in."
            )
        return Spaces(
            observation="frames" if self._observations.dtype == np.uint8 else "embeddings",
            observation_shape=self._observations.shape[1:],
            goal_size=self.goals.embeddings.shape[1],
            num_actions=None if max_action is None else num_actions or max_action + 1,
            action_size=None if max_action is not None else self._actions.shape[1],
            state_size=None if self._states is None else self._states.shape[1],
            frame_stack=self._options["frame_stack"],
        )


def _reopen(folder: Path, options: dict) -> ReplayData:
    return ReplayData(folder, **options)


def _count_positive(segments: np.ndarray) -> tuple[int, int]:
    """Returns the numbers of segments that end in success and of rewards above 0."""
    return int(segments["terminated"].sum()), int(segments["rewarded"].sum())


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))
