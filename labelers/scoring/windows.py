"""Windows: scores that look at the last w frames of an episode instead of one. The pipeline and a live run use the same object.

    frame      o_0   o_1   o_2   o_3   o_4      w = 3, causal
    window     0     0 1   0 1 2 1 2 3 2 3 4    an episode begins with windows of the frames that there are

Over embeddings, the mean or the elementwise maximum of the window's embeddings, made a unit vector again, is scored; over
scores, it is the mean or maximum of the window's scores. A frame that could not be read is in no window: the last w readable
frames are. Sums are taken in float64 from the oldest frame to the newest whatever came in which call, so that a row's bits
depend on its window alone.

Shape letters: N frames, K numbers of a row (embedding or scores), D size of an embedding, G goals.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from vlm_rewards.schemas.options import as_declared, option

MAX_WINDOW = 1024
OVER = ("embeddings", "scores")
REDUCTIONS = ("mean", "max")
_GROUP = "windows of several frames"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Settings of a window of frames.

    Args:
        frames: Number w of frames in a window, the current one included; 1 is no window.
        over: Quantity that is reduced: "embeddings" or "scores".
        reduce: Reduction: "mean" or "max".

    Raises:
        ValueError: A setting is not what it must be.
    """

    frames: int = dataclasses.field(
        default=1,
        metadata=option(
            "N", "frames that a score looks at: its own and the N - 1 before it", name="window", group=_GROUP
        ),
    )
    over: str = dataclasses.field(
        default="scores",
        metadata=option("", "what a window combines", name="window-over", choices=OVER, group=_GROUP),
    )
    reduce: str = dataclasses.field(
        default="mean",
        metadata=option("", "how a window combines it", name="window-reduce", choices=REDUCTIONS, group=_GROUP),
    )

    def __post_init__(self) -> None:
        as_declared(self)
        if not 1 <= self.frames <= MAX_WINDOW:
            raise ValueError(
                f"a window must be of 1 to {MAX_WINDOW} frames, got {self.frames}; 1 looks at each frame alone"
            )
        if self.over not in OVER:
            raise ValueError(f"a window must be over {' or '.join(OVER)}, got {self.over!r}; choose one of them")
        if self.reduce not in REDUCTIONS:
            raise ValueError(
                f"what a window takes must be {' or '.join(REDUCTIONS)}, got {self.reduce!r}; choose one of them"
            )


class Windows:
    """Means or maxima over the last frames of each of several sequences; remembers the frames that windows to come will need.

    Not safe to share between threads: every unit of work, and every live run, has its own.

    Args:
        settings: What a window is.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self.settings = settings
        self._recent: dict[Hashable, np.ndarray] = {}

    def push(self, keys: Sequence[Hashable], rows: np.ndarray) -> np.ndarray:
        """Adds frames and gives the value of each one's window.

        Args:
            keys: N, which sequence each frame belongs to: the episode's id, or the number of a live environment. The frames of
                one key come in order, in this call and from call to call.
            rows: `[N, K]` float32.

        Returns:
            `[N, K]` float32; the rows themselves where a window is one frame. Means of embeddings are not of unit length.
        """
        assert len(keys) == len(rows), (len(keys), rows.shape)
        if self.settings.frames == 1:
            return rows
        members: dict[Hashable, list[int]] = {}
        for index, key in enumerate(keys):
            members.setdefault(key, []).append(index)
        result = np.empty_like(rows)
        for key, indices in members.items():
            result[indices] = self._push_one(key, rows[indices])
        return result

    def _push_one(self, key: Hashable, rows: np.ndarray) -> np.ndarray:
        before = self._recent.get(key, rows[:0])
        known = np.concatenate([before, rows])
        self._recent[key] = known[-(self.settings.frames - 1) :].copy()
        is_mean = self.settings.reduce == "mean"
        absent = np.full((self.settings.frames - 1 - len(before), rows.shape[1]), 0.0 if is_mean else -np.inf)
        padded = np.concatenate([absent, known])
        windows = [
            padded[shift : shift + len(rows)] for shift in range(self.settings.frames)
        ]  # the oldest frames first
        value = windows[0].copy()
        for window in windows[1:]:
            (np.add if is_mean else np.maximum)(value, window, out=value)
        if is_mean:
            value /= np.minimum(len(before) + 1 + np.arange(len(rows)), self.settings.frames)[:, None]
        return value.astype(np.float32)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Ends the sequences of these keys: what comes next under one of them begins a new one."""
        for key in keys:
            self._recent.pop(key, None)

    def keep_only(self, key: Hashable) -> None:
        """Ends all sequences but that of one key."""
        self._recent = {kept: rows for kept, rows in self._recent.items() if kept == key}


class EpisodeScorer:
    """Scores the frames of episodes in order, each by its window; made by `Labeler.episodes`.

    Not safe to share between threads.

    Args:
        score: `[N, D]` float32 of unit length to `[N, G]` float32, each row by itself.
        settings: What a window is.
    """

    def __init__(self, score: Callable[[np.ndarray], np.ndarray], settings: WindowSettings) -> None:
        self._score = score
        self._windows = Windows(settings)

    def push(self, keys: Sequence[Hashable], embeddings: np.ndarray) -> np.ndarray:
        """Scores the next frames of episodes.

        Args:
            keys: N, which episode each frame belongs to: its id, or the number of a live environment. The frames of one key
                come in order, in this call and from call to call.
            embeddings: `[N, D]` float32, unit length.

        Returns:
            `[N, G]` float32. A row's bits depend on the embeddings of its window alone.

        Raises:
            ValueError: The embeddings are not what `Labeler.score` takes, or those of a window cancel out.
        """
        if self._windows.settings.over == "scores" or self._windows.settings.frames == 1:
            return self._windows.push(keys, self._score(embeddings))
        means = self._windows.push(keys, embeddings).astype(np.float64)
        norms = np.sqrt((means * means).sum(axis=1, keepdims=True))
        if norms.min(initial=1.0) < 1e-6:
            index = int(norms.argmin())
            raise ValueError(
                f"the embeddings of a window must have a direction together, got length {norms[index, 0]:.3g} in episode "
                f"{keys[index]!r}; take the window over scores"
            )
        return self._score((means / norms).astype(np.float32))

    def end(self, keys: Iterable[Hashable]) -> None:
        """Ends the episodes of these keys: the next frame under one of them is the first of another."""
        self._windows.forget(keys)

    def end_all_but(self, key: Hashable) -> None:
        """Ends all episodes but one."""
        self._windows.keep_only(key)
