"""Records episodes of BabyAI levels, with the ground truth of every goal of the bank in every frame.

    settings, index ──► level, seeds, policy ──► reset, step, step, ... ──► Episode: T+1 egocentric frames, T steps
                                                        └──► agent's symbolic view ──► goals achieved in each frame

An episode is a pure function of the settings and its index, so the same seed gives the same bytes, however many workers
record and wherever a killed run went on. Frames are MiniGrid's own egocentric render: it shows the carried object, which
the view from above does not. They are stored as PNG, without loss.

Levels are drawn from RECORDED_SEEDS. The reference models are trained, chosen and evaluated on seeds below them, so no recorded
level was ever seen by the model that labels it; agents are fine-tuned and evaluated on seeds above them.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_rewards.labelers.domains.babyai.goals import goal_bank, ground_truth
from vlm_rewards.labelers.domains.babyai.levels import (
    CAMERA,
    RECORDED_SEEDS,
    BabyAILevel,
    babyai_bot,
    draw_seed,
)
from vlm_rewards.pipelines.engine.driver import RunSummary, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.record.settings import RecordSettings, parse_policy
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpora import write_episodes
from vlm_rewards.schemas.goals import write_goals
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import encode_png

FEATURES = CorpusFeatures(cameras=(CAMERA,), action_size=0, has_achieved_goals=True)

_EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """What was written for one unit.

    Args:
        rows: Frames.
        episodes: Episodes.
        failures: Episodes that could not be recorded.
        counts: "succeeded": episodes that ended with a reward; "bot_gave_up": episodes that end, as truncated, where
            the bot knew no next action.
    """

    rows: int
    episodes: int
    failures: tuple[Failure, ...]
    counts: dict[str, int]


class BotGaveUpError(RuntimeError):
    """The bot has no first action, so there is nothing to record."""


def plan_record(settings: RecordSettings) -> list[Unit]:
    """Cuts the episodes into ranges of `episodes_per_shard`."""
    units = []
    for start in range(0, settings.episodes, settings.episodes_per_shard):
        stop = min(start + settings.episodes_per_shard, settings.episodes)
        name = f"episodes-{start:06d}-{stop:06d}"
        units.append(Unit(name=name, start=start, stop=stop, num_episodes=stop - start))
    return units


@dataclasses.dataclass(frozen=True)
class RecordUnit:
    """Records one range of episodes, as the work of `pipelines.engine.driver.run_units`.

    Args:
        settings: What to record.
    """

    settings: RecordSettings

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        """Writes the unit's part and takes over what happened."""
        with part.timing("record"):
            recorded = record_unit(self.settings, unit, part.path)
        part.advance(recorded.rows)
        part.episodes = recorded.episodes
        part.counts.update(recorded.counts)
        for failure in recorded.failures:
            part.fail(failure)


def record(
    settings: RecordSettings, output: str | Path, *, beam_options: Sequence[str] = (), workers: int | None = 1
) -> RunSummary:
    """Records a corpus and writes goals.jsonl, the goals that its ground truth covers, beside it.

    Args:
        settings: What to record.
        output: Folder for the corpus.
        beam_options: Options for Beam, as given after a bare `--`.
        workers: Processes; a level's steps are plain Python, so threads would not help.

    Returns:
        What was done, with the manifest of the corpus.

    Raises:
        ValueError: The output folder holds something else.
    """
    units = plan_record(settings)
    folder = OutputFolder(
        output,
        kind="corpus",
        fingerprint=Fingerprint(dataclasses.asdict(settings)),
        settings=dataclasses.asdict(settings),
        extension=_EXTENSIONS[settings.format],
    )
    with folder.claim(units):
        write_goals(goal_bank(), folder.path / "goals.jsonl")
    return run_units(
        units,
        RecordUnit(settings),
        folder,
        beam_options=beam_options,
        workers=workers,
        in_processes=True,
        max_failure_share=0.5,
        title="record",
        counted="episodes",
        counted_name="episodes",
        total=settings.episodes,
    )


def record_unit(settings: RecordSettings, unit: Unit, path: str | Path) -> Recorded:
    """Records a range of episodes to one file.

    Args:
        settings: What to record.
        unit: One of `plan_record(settings)`.
        path: The file; replaced if it exists.
    """
    rows = episodes = 0
    counts = {"succeeded": 0, "bot_gave_up": 0}
    failures: list[Failure] = []

    def record() -> Iterator[Episode]:
        nonlocal rows, episodes
        for index in range(unit.start, unit.stop):
            try:
                episode, gave_up = _record(settings, index)
            except BotGaveUpError as error:
                episode_id = _episode_id(settings, index)
                failures.append(
                    Failure(
                        scope="episode", shard=unit.name, episode_id=episode_id, reason="bot gave up", detail=str(error)
                    )
                )
                continue
            rows += episode.num_frames
            episodes += 1
            assert episode.rewards is not None
            counts["succeeded"] += bool(episode.rewards[-1] > 0)
            counts["bot_gave_up"] += gave_up
            yield episode

    write_episodes(path, FEATURES, record(), settings.format)
    return Recorded(rows=rows, episodes=episodes, failures=tuple(failures), counts=counts)


def record_episode(settings: RecordSettings, index: int) -> Episode:
    """Records one episode: a pure function of its arguments.

    The bot does not know every situation: above all it does not go on after a box was opened, which noise does now and
    then. There the demonstrator stops, and the episode ends as truncated.

    Args:
        settings: What to record.
        index: Which episode, from 0.

    Returns:
        The episode, with one camera, "egocentric".

    Raises:
        BotGaveUpError: The bot knows no action in the level's first state.
    """
    return _record(settings, index)[0]


def env_seed(settings: RecordSettings, index: int) -> int:
    """The seed from which episode `index` draws its level: one of RECORDED_SEEDS."""
    return draw_seed(RECORDED_SEEDS, f"{settings.seed}/{index}")


def _episode_id(settings: RecordSettings, index: int) -> str:
    return f"{settings.envs[index % len(settings.envs)]}-seed{settings.seed}-{index:06d}"


def _record(settings: RecordSettings, index: int) -> tuple[Episode, bool]:
    """The episode, and whether the bot gave up in it."""
    rng = np.random.default_rng([settings.seed, index])
    shares = parse_policy(settings.policy)
    policy = str(rng.choice(list(shares), p=list(shares.values())))
    level = BabyAILevel(settings.envs[index % len(settings.envs)], settings.tile_size)
    looks = [level.reset(env_seed(settings, index))]
    mission = level.mission
    actions: list[int] = []
    rewards: list[float] = []
    terminations: list[bool] = []
    truncations: list[bool] = []
    bot: Any = None
    gave_up = False
    while not actions or not (terminations[-1] or truncations[-1]):
        action = int(rng.integers(level.num_actions))
        if policy != "random":
            noisy = policy == "noisy-bot" and rng.random() < settings.noise
            try:
                bot = babyai_bot()(level.env.unwrapped) if bot is None else bot
                advice = int(bot.replan(actions[-1] if actions else None))
            except Exception as error:  # the bot asserts, and raises what comes, where it does not know how to go on
                if not actions:
                    raise BotGaveUpError(
                        f"the bot must know an action in the first state of {_episode_id(settings, index)}, got "
                        f"{error!r}; leave the level out or record it with the random policy"
                    ) from error
                gave_up = True
                truncations[-1] = True
                break
            action = action if noisy else advice
        look, reward, terminated, truncated = level.step(action)
        looks.append(look)
        actions.append(action)
        rewards.append(reward)
        terminations.append(terminated)
        truncations.append(truncated or (len(actions) == settings.max_steps and not terminated))
    level.close()
    goal_ids = _goal_ids()
    achieved = ground_truth(np.stack([look.view for look in looks]))
    episode = Episode(
        episode_id=_episode_id(settings, index),
        images={CAMERA: _encode([look.frame for look in looks])},
        actions=np.array(actions, np.int64),
        rewards=np.array(rewards, np.float32),
        terminations=np.array(terminations, np.bool_),
        truncations=np.array(truncations, np.bool_),
        instruction=mission,
        achieved_goals=[[goal_ids[i] for i in np.flatnonzero(row)] for row in achieved],
    )
    return episode, gave_up


@functools.cache
def _goal_ids() -> tuple[str, ...]:
    return tuple(goal.id for goal in goal_bank())


def _encode(frames: list[np.ndarray]) -> list[bytes]:
    """Many frames of an episode are equal: each is encoded once."""
    encoded: dict[bytes, bytes] = {}
    for frame in frames:
        pixels = frame.tobytes()
        if pixels not in encoded:
            encoded[pixels] = encode_png(frame)
    return [encoded[frame.tobytes()] for frame in frames]
