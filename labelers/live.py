"""The labeler in a live run: frames embedded behind a cache, scored and judged one at a time, and statistics of the rewards.

    frames [N, H, W, 3] ─► digest ─┬─ seen before: its embedding ──────────────────┬─► LiveScores ─► RuleState
                                   └─ new: resize, encode (full batches of B) ─────┘    [N, G]         rewards [N, G]

Shape letters: N frames or environments, H and W sides of a frame, D size of an embedding, G goals.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache, FrameLookup, frame_digest
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.rewards.rewards import RuleProgress, advance, step_rewards
from vlm_rewards.schemas.fingerprints import READING_PARTS, Fingerprint
from vlm_rewards.schemas.rules import RewardRule

CACHE_BYTES = 64 << 20


def check_labeler(labeler: Labeler, labels: Fingerprint, camera: str | None) -> None:
    """Refuses a labeler that would not score a live frame as the labels that an agent was trained on.

    Args:
        labeler: Labeler of the live environment.
        labels: Fingerprint of those labels, with camera and sparseness: `labels_fingerprint` of a saved agent, also in the
            settings of relabelled trajectories.
        camera: Camera of the frames that the environment shows.

    Raises:
        ValueError: A part of the fingerprint differs; the message names it.
    """
    read_as = {name: labels.parts[name] for name in READING_PARTS if name in labels.parts}
    here = Fingerprint({**labeler.fingerprint.parts, **read_as, "camera": camera})
    labels.check_equal(
        here,
        "the labels that the agent was trained on",
        "take the labeler and the camera of these labels, or label, relabel and train again with this one",
    )


class FrameEmbedder:
    """Embeds frames. An identical frame is encoded once per call, and not again as long as the cache holds it.

    A frame gets the same bits as in the label pipeline. Call it from one thread at a time.

    Args:
        labeler: Labeler of the corpus.
        cache_bytes: Memory for the embeddings of earlier frames, in bytes; 0 for none.

    Raises:
        ValueError: cache_bytes is below 0.

    Attributes:
        counts: Number of "frames" given, of them "encoded" by the model and "cached" ones, and forward "passes" of the model.
        seconds: Time spent here, in s.
    """

    def __init__(self, labeler: Labeler, cache_bytes: int = CACHE_BYTES) -> None:
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes must be at least 0, got {cache_bytes}. 0 switches the cache off.")
        if labeler.encoder.window > 1:
            raise ValueError(
                f"live rewards need an encoder of single frames: got {labeler.settings.model}, which looks at "
                f"{labeler.encoder.window} at once. Label recorded episodes with it."
            )
        self.labeler = labeler
        self.counts = {"frames": 0, "encoded": 0, "cached": 0, "passes": 0}
        self.seconds = 0.0
        self._cache = EmbeddingCache(labeler.dim, cache_bytes) if cache_bytes else None

    def apart(self) -> "FrameEmbedder":
        """Returns an embedder with the same cache and its own counts. Call the two from one thread."""
        other = FrameEmbedder(self.labeler, 0)
        other._cache = self._cache
        return other

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Embeds N frames [H, W, 3] uint8; returns [N, D] float32 of unit length."""
        start = time.perf_counter()
        lookup = FrameLookup(self._cache)
        found = [lookup.find(frame_digest(frame)) for frame in frames]
        new = [index for index, (_, is_new) in enumerate(found) if is_new]
        if new:
            pixels = np.stack([self.labeler.resize(frames[index]) for index in new])
            lookup.fill([found[index][0] for index in new], self.labeler.embed(pixels))
        self.counts["frames"] += len(frames)
        self.counts["encoded"] += len(new)
        self.counts["cached"] += len({slot.digest for slot, _ in found}) - len(new)
        self.counts["passes"] += -(-len(new) // self.labeler.settings.batch_size)
        self.seconds += time.perf_counter() - start
        rows = [slot.embedding for slot, _ in found if slot.embedding is not None]
        return np.stack(rows) if rows else np.empty((0, self.labeler.dim), np.float32)


class LiveScores:
    """Scores the frames of N simultaneous episodes as they come, each with its window.

    Args:
        labeler: Labeler of the corpus.
        num_envs: N.
    """

    def __init__(self, labeler: Labeler, num_envs: int) -> None:
        self._windows = labeler.episodes()
        self._kept = labeler.settings.window.frames - 1
        self._recent: list[list[np.ndarray]] = [[] for _ in range(num_envs)]  # embeddings that later windows need

    def begin(self, envs: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Begins episodes with their first frames; arguments and result as for `step`."""
        self._windows.end(envs.tolist())
        for index in envs.tolist():
            self._recent[index] = []
        return self.step(envs, embeddings)

    def step(self, envs: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Scores the next frames.

        Args:
            envs: [M] indices of the environments.
            embeddings: [M, D] float32, unit length.

        Returns:
            [M, G] float32.
        """
        if self._kept:
            for index, embedding in zip(envs.tolist(), embeddings, strict=True):
                self._recent[index] = [*self._recent[index], embedding][-self._kept :]
        return self._windows.push(envs.tolist(), embeddings)

    def state_dict(self) -> list[list[np.ndarray]]:
        """Returns everything needed to resume: the last embeddings of each episode, as many as a window looks back."""
        return [list(embeddings) for embeddings in self._recent]

    def load_state_dict(self, state: Sequence[Sequence[np.ndarray]]) -> None:
        """Restores what `state_dict` returned."""
        self._recent = [list(embeddings) for embeddings in state]
        for index, embeddings in enumerate(self._recent):
            self._windows.end([index])
            if embeddings:
                self._windows.push([index] * len(embeddings), np.stack(embeddings))


class Judged(NamedTuple):
    """Rewards and successes of frames, for every goal.

    Attributes:
        rewards: [N, G] float32 of the step that led to the frame.
        successes: [N, G] bool, whether the goal counts as achieved in the frame.
    """

    rewards: np.ndarray
    successes: np.ndarray


class RuleState:
    """Applies the reward rule to N simultaneous episodes, one frame at a time; see `labelers.rewards.rewards`.

    Args:
        rule: Rule of the G goals.
        num_envs: N.
        ignore_initial: Whether a success that holds from the first frame on counts only after it has ended once; hindsight does
            not count it as an achievement either.
    """

    def __init__(self, rule: RewardRule, num_envs: int, *, ignore_initial: bool = False) -> None:
        shape = (num_envs, len(rule.thresholds))
        self.rule = rule
        self.ignore_initial = ignore_initial
        self._scores = np.zeros(shape, np.float32)
        self._run = np.zeros(shape, np.int32)  # successive frames over the threshold, up to this one
        self._success = np.zeros(shape, np.bool_)
        self._initial = np.zeros(shape, np.bool_)  # successes that hold since the first frame

    def begin(self, envs: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Begins episodes.

        Args:
            envs: [M] indices of the environments.
            scores: [M, G] float32 of their first frames.

        Returns:
            [M, G] bool, the goals that count as achieved in the first frame.
        """
        self._run[envs] = 0
        self._success[envs] = False
        self._advance(envs, scores)
        self._initial[envs] = self._success[envs]
        return self._success[envs]

    def step(self, envs: np.ndarray, scores: np.ndarray) -> Judged:
        """Judges the next frames.

        Args:
            envs: [M] indices of the environments.
            scores: [M, G] float32 of their frames after the action.

        Returns:
            Rewards and successes, M rows.
        """
        before = self._scores[envs]
        self._advance(envs, scores)
        self._initial[envs] &= self._success[envs]
        successes = self._success[envs]
        if self.ignore_initial:
            successes = successes & ~self._initial[envs]
        return Judged(step_rewards(before, scores, successes, self.rule), successes)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns everything needed to resume."""
        return {name: getattr(self, name).copy() for name in ("_scores", "_run", "_success", "_initial")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name, value in state.items():
            getattr(self, name)[:] = value

    def _advance(self, envs: np.ndarray, scores: np.ndarray) -> None:
        _, (run, success) = advance(scores[None], self.rule, RuleProgress(self._run[envs], self._success[envs]))
        self._run[envs], self._success[envs], self._scores[envs] = run, success, scores


class RewardMonitor:
    """Statistics of the rewards of N environments.

    Args:
        rule: Rule of the G goals.
        num_envs: N.

    Attributes:
        counts: Number of "steps" judged, of "episodes" ended, of "episodes_with_success" among them, and of "positive_rewards".
        best_margin: Largest difference between the score of a step's own goal and its threshold; -inf before the first step.
    """

    def __init__(self, rule: RewardRule, num_envs: int) -> None:
        self.counts = {"steps": 0, "episodes": 0, "episodes_with_success": 0, "positive_rewards": 0}
        self.best_margin = -np.inf
        self._thresholds = rule.threshold_array
        self._has_succeeded = np.zeros(num_envs, np.bool_)

    def add(
        self,
        envs: np.ndarray,
        goals: np.ndarray,
        scores: np.ndarray,
        rewards: np.ndarray,
        successes: np.ndarray,
        ended: np.ndarray,
    ) -> None:
        """Takes in a step.

        Args:
            envs: [M] indices of the environments that took a step.
            goals: [M] int, their goals.
            scores: [M] float32 of the frames after the action, for these goals.
            rewards: [M] float32.
            successes: [M] bool.
            ended: [M] bool, whether the episode ended there.
        """
        self._has_succeeded[envs] |= successes
        self.counts["steps"] += len(envs)
        self.counts["episodes"] += int(ended.sum())
        self.counts["episodes_with_success"] += int((ended & self._has_succeeded[envs]).sum())
        self.counts["positive_rewards"] += int((rewards > 0).sum())
        self.best_margin = float(np.max(scores - self._thresholds[goals], initial=self.best_margin))

    def begin(self, envs: np.ndarray) -> None:
        """Takes in that these environments begin an episode."""
        self._has_succeeded[envs] = False

    def check(self, after_episodes: int = 200, after_steps: int = 25_000) -> None:
        """Stops a run that has nothing to learn from; call it now and then.

        Args:
            after_episodes: Number of ended episodes from which on the run is stopped.
            after_steps: Number of steps from which on it is stopped, as few episodes end on long levels.

        Raises:
            ValueError: No reward was positive in so many episodes or steps.
        """
        complaint = self.complaint()
        if complaint and (self.counts["episodes"] >= after_episodes or self.counts["steps"] >= after_steps):
            raise ValueError(complaint)

    def complaint(self) -> str | None:
        """Returns what is wrong if no reward was ever positive, with the fixes; None if one was, or before the first step."""
        if self.counts["positive_rewards"] or not self.counts["steps"]:
            return None
        return (
            f"a live reward must be positive now and then, got none in {self.counts['steps']:,} steps and "
            f"{self.counts['episodes']:,} ended episodes, where the highest score was {self.best_margin:+.4f} from its goal's "
            f"threshold. Calibrate the thresholds and label again, reword the goals, start from an agent that succeeds sometimes, "
            f"or take an easier level."
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume."""
        succeeded = self._has_succeeded.copy()
        return {"counts": dict(self.counts), "best_margin": self.best_margin, "has_succeeded": succeeded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.counts, self.best_margin = {**self.counts, **state["counts"]}, state["best_margin"]
        self._has_succeeded = state["has_succeeded"].copy()
