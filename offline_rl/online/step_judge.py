"""From the frames of a live step to rewards, successes and scores, at once or in a thread beside the environments.

    frames after the actions [M, H, W, 3] ─┐
    first frames of episodes [K, H, W, 3] ─┴─► FrameEmbedder ─► LiveScores ─► RuleState ─► Verdict
                                                  [M + K, D]      [M + K, G]    rewards, successes [M, G]

                           ┌ judge   embeds and judges now, returns the Verdict
    FramesToJudge ─────────┤
                           └ submit  queues the frames for the thread, returns a Future of the Verdict; `wait` waits for it

The scores and the rule remember the episode of every environment, so steps are judged in the order in which they were taken; one
thread does it.

Shape letters: N environments, M of them took a step, K of them began an episode, H and W sides of a frame, D size of an
embedding, G goals.
"""

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder, LiveScores, RewardMonitor, RuleState
from vlm_rewards.schemas.rules import RewardRule


class FramesToJudge(NamedTuple):
    """The frames of one step of N environments.

    Attributes:
        stepped: [M] int64, the environments that took a step.
        after: [M, H, W, 3] uint8, the frames after their actions.
        goals: [M] int64, the goals under which they took it.
        ended: [M] bool, whether the environment ended the episode there.
        begun: [K] int64, the environments that began an episode after that.
        first: [K, H, W, 3] uint8, the first frames of these episodes.
        first_goals: [K] int64, the goals of these episodes.
        scores: [M, G] float32 of the frames after the actions, where they are known without the labeler; else None.
        first_scores: [K, G] float32 of the first frames, likewise.
    """

    stepped: np.ndarray
    after: np.ndarray
    goals: np.ndarray
    ended: np.ndarray
    begun: np.ndarray
    first: np.ndarray
    first_goals: np.ndarray
    scores: np.ndarray | None = None
    first_scores: np.ndarray | None = None


class Verdict(NamedTuple):
    """Judgement of the labeler on a `FramesToJudge`.

    Attributes:
        rewards: [M] float32, for the environment's goal.
        successes: [M] bool, whether that goal counts as achieved after the action.
        scores: [M, G] float32 of the frames after the actions, for all goals.
        first_scores: [K] float32 of the first frames, for their goals.
        after: [M, D] float32, embeddings of the frames after the actions.
        first: [K, D] float32, embeddings of the first frames.
    """

    rewards: np.ndarray
    successes: np.ndarray
    scores: np.ndarray
    first_scores: np.ndarray
    after: np.ndarray
    first: np.ndarray


class StepJudge:
    """Judges the steps of N environments with a labeler; see the module's picture.

    Args:
        labeler: Labeler of the rewards.
        num_envs: N.
        cache_bytes: Memory for the embeddings of earlier frames, in bytes; 0 for none.
        ignore_initial: Setting of `labelers.live.RuleState`.
        end_at_success: Whether a success ends the episode.
        max_pending: Number of submitted steps that may be unfinished; `submit` waits if there are more. 0 for no thread.
        rule: Rule of the scores that frames come with; None where the labeler scores them.
        embeds: Whether frames are embedded even if their scores are known.

    Attributes:
        embedder: The embedder, with its counts of frames and passes of the model.
        monitor: Statistics of the rewards so far.
        seconds_waited: Seconds the caller has spent here waiting for embeddings.
    """

    def __init__(
        self,
        labeler: Labeler,
        num_envs: int,
        *,
        cache_bytes: int,
        ignore_initial: bool,
        end_at_success: bool,
        max_pending: int,
        rule: RewardRule | None = None,
        embeds: bool = True,
    ) -> None:
        self.embedder = FrameEmbedder(labeler, cache_bytes)
        rule = labeler.rule if rule is None else rule
        self.monitor = RewardMonitor(rule, num_envs)
        self.seconds_waited = 0.0
        self._scores = LiveScores(labeler, num_envs)
        self._embeds = embeds
        self._rule = RuleState(rule, num_envs, ignore_initial=ignore_initial)
        self._end_at_success = end_at_success
        self._max_pending = max_pending
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="live-rewards") if max_pending else None
        self._pending: deque[Future[Verdict]] = deque()

    def judge(self, frames: FramesToJudge) -> Verdict:
        """Embeds and judges the frames of a step now."""
        start = time.perf_counter()
        embeddings = self._embed(frames)
        self.seconds_waited += time.perf_counter() - start
        return self._judge(frames, embeddings)

    def submit(self, frames: FramesToJudge) -> "Future[Verdict]":
        """Queues the frames of a step for the thread."""
        assert self._worker is not None, "made without a thread"
        while len(self._pending) >= self._max_pending:
            self.wait(self._pending[0])
        future = self._worker.submit(lambda: self._judge(frames, self._embed(frames)))
        self._pending.append(future)
        return future

    def wait(self, future: "Future[Verdict]") -> Verdict:
        """Waits for a submitted step.

        Raises:
            Exception: Whatever went wrong in the thread.
        """
        start = time.perf_counter()
        verdict = future.result()
        self.seconds_waited += time.perf_counter() - start
        while self._pending and self._pending[0].done():
            self._pending.popleft()
        return verdict

    def wait_for_all(self) -> None:
        """Waits until nothing is queued."""
        while self._pending:
            self.wait(self._pending[0])

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume, but not the cache: it changes no bit, frames seen before are encoded again."""
        return {
            "rule": self._rule.state_dict(),
            "scores": self._scores.state_dict(),
            "monitor": self.monitor.state_dict(),
            "counts": dict(self.embedder.counts),
            "seconds": self.embedder.seconds,
            "seconds_waited": self.seconds_waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._rule.load_state_dict(state["rule"])
        self._scores.load_state_dict(state["scores"])
        self.monitor.load_state_dict(state["monitor"])
        self.embedder.counts, self.embedder.seconds = dict(state["counts"]), state["seconds"]
        self.seconds_waited = state["seconds_waited"]

    def close(self) -> None:
        """Ends the thread, without judging what is still queued."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _embed(self, frames: FramesToJudge) -> np.ndarray:
        if frames.scores is None or self._embeds:
            return self.embedder([*frames.after, *frames.first])
        return np.empty((len(frames.after) + len(frames.first), 0), np.float32)

    def _judge(self, frames: FramesToJudge, embeddings: np.ndarray) -> Verdict:
        after, first = np.split(embeddings, [len(frames.after)])
        # Every goal is scored, so that hindsight needs no second pass; rewards are those of the environment's own goal.
        scores = self._scores.step(frames.stepped, after) if frames.scores is None else frames.scores
        rewards, successes = self._rule.step(frames.stepped, scores)
        rows = np.arange(len(frames.goals))
        own_scores = scores[rows, frames.goals]
        own_rewards, own_successes = rewards[rows, frames.goals], successes[rows, frames.goals]
        over = frames.ended | (own_successes & self._end_at_success)
        self.monitor.add(frames.stepped, frames.goals, own_scores, own_rewards, own_successes, over)
        # Episodes begin after the last frames of those before them were judged: in one step an environment may do both.
        self.monitor.begin(frames.begun)
        first_scores = frames.first_scores
        if first_scores is None:
            first_scores = self._scores.begin(frames.begun, first)
        self._rule.begin(frames.begun, first_scores)
        own_first = first_scores[np.arange(len(first)), frames.first_goals]
        return Verdict(own_rewards, own_successes, scores, own_first, after, first)
