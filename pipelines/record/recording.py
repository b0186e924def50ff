"""Records episodes of a domain's environments, with the ground truth of every goal of a bank in every frame.

    settings, index ──► level, seed, policy ──► reset, step, step, ... ──► Episode: T+1 frames per camera, T steps
                                                     └──► facts ──► ids of the goals that hold in each frame

An episode is a pure function of the settings and its index, so the same seed gives the same bytes, whatever the number of workers
and wherever a killed run resumed. Frames are stored as PNG, without loss.

Levels are drawn from the domain's recorded seeds: no level on which a reference model was trained, and none in which agents are
fine-tuned or evaluated.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from vlm_rewards.labelers.domains.domain import Domain, Expert, ExpertGaveUpError, Level, domain_of_environments
from vlm_rewards.pipelines.engine.driver import RunSummary, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.record.settings import RecordKeywords, RecordRun, RecordSettings, parse_policy
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.files.remote_paths import location_of
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import writable_format, write_episodes
from vlm_rewards.schemas.goals import write_goals
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.options import build_settings, shows_settings
from vlm_rewards.schemas.pictures import encode_png


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """Counts of what was written for one unit.

    Args:
        rows: Frames.
        episodes: Episodes.
        failures: Episodes that could not be recorded.
        counts: "succeeded": episodes that ended with a reward; "bot_gave_up": episodes that end, as truncated, where
            the expert knew no next action.
    """

    rows: int
    episodes: int
    failures: tuple[Failure, ...]
    counts: dict[str, int]


class BotGaveUpError(RuntimeError):
    """The expert knows no first action, so there is nothing to record."""


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
        settings: Settings of the recording.
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


@shows_settings(RecordSettings, RecordRun)
def record(*, output: str | Path, **settings: Unpack[RecordKeywords]) -> RunSummary:
    """Records a corpus and writes goals.jsonl, the goals that its ground truth covers, beside it.

    Args:
        output: Folder for the corpus, or URL of an object store.
        settings: Fields of `RecordSettings`, what to record, and of `RecordRun`, how.

    Returns:
        What was done, with the manifest of the corpus.

    Raises:
        ValueError: The output folder holds something else, or is in a store that can only be read.
        ImportError: What the domain needs is not installed.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.record(output="recorded/", envs=["BabyAI-GoToLocal-v0"], episodes=4)
        RunSummary(corpus: ... rows of 4 episodes in 1 units, 0 of them done before, 0 failures)
    """
    what, run = build_settings(settings, RecordSettings, RecordRun)
    for env in what.envs:
        _make(what, env).close()  # refuses before the folder is claimed
    units = plan_record(what)
    path = location_of(output)
    folder = OutputFolder(
        path,
        kind="corpus",
        fingerprint=Fingerprint(dataclasses.asdict(what)),
        settings=dataclasses.asdict(what),
        extension=writable_format(what.format).extension or what.format,
    )
    with folder.claim(units):
        write_goals(_domain(what).goals(str(what.bank)), path / "goals.jsonl")
    return run_units(
        units,
        RecordUnit(what),
        folder,
        beam_options=run.beam_options,
        log_format=run.log_format,
        workers=run.workers,
        in_processes=True,
        max_failure_share=0.5,
        title="record",
        counted="episodes",
        counted_name="episodes",
        total=what.episodes,
    )


def record_unit(settings: RecordSettings, unit: Unit, path: str | Path) -> Recorded:
    """Records a range of episodes to one file.

    Args:
        settings: Settings of the recording.
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

    features = CorpusFeatures(
        cameras=settings.cameras,
        action_size=0,
        has_achieved_goals=True,
        truth_goals=tuple(goal.id for goal in _domain(settings).goals(str(settings.bank))),
    )
    write_episodes(path, features, record(), settings.format)
    return Recorded(rows=rows, episodes=episodes, failures=tuple(failures), counts=counts)


def record_episode(settings: RecordSettings, index: int) -> Episode:
    """Records one episode: a pure function of its arguments.

    Where the expert knows no next action, it stops, and the episode ends as truncated.

    Args:
        settings: Settings of the recording.
        index: Index of the episode, from 0.

    Raises:
        BotGaveUpError: The expert knows no action in the first state.
    """
    return _record(settings, index)[0]


def env_seed(settings: RecordSettings, index: int) -> int:
    """Returns the seed of the level of episode `index`, one of the domain's recorded seeds."""
    return _domain(settings).seeds.draw("recorded", f"{settings.seed}/{index}")


def _domain(settings: RecordSettings) -> Domain:
    return domain_of_environments(settings.envs)


def _make(settings: RecordSettings, env: str) -> Level:
    """Makes a level that shows what is recorded."""
    assert settings.frame_size is not None
    return _domain(settings).make(env, frame_size=settings.frame_size, cameras=settings.cameras)


def _episode_id(settings: RecordSettings, index: int) -> str:
    env = settings.envs[index % len(settings.envs)].translate(str.maketrans("./\\", "___"))
    return f"{env}-seed{settings.seed}-{index:06d}"


def _record(settings: RecordSettings, index: int) -> tuple[Episode, bool]:
    """Returns the episode, and whether the expert gave up in it."""
    rng = np.random.default_rng([settings.seed, index])
    shares = parse_policy(settings.policy)
    policy = str(rng.choice(list(shares), p=list(shares.values())))
    level = _make(settings, settings.envs[index % len(settings.envs)])
    looks = [level.reset(env_seed(settings, index))]
    mission = level.mission
    expert = None if policy == "random" else level.expert()
    actions: list[int] = []
    rewards: list[float] = []
    terminations: list[bool] = []
    truncations: list[bool] = []
    gave_up = False
    while not actions or not (terminations[-1] or truncations[-1]):
        action = int(rng.integers(level.num_actions))
        if policy != "random":
            noisy = policy == "noisy-bot" and rng.random() < settings.noise
            try:
                advice = _advice(expert, actions)
            except ExpertGaveUpError as error:
                if not actions:
                    raise BotGaveUpError(
                        f"the bot must know an action in the first state of {_episode_id(settings, index)}, got "
                        f"{error}; leave the level out or record it with the random policy"
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
    order = {goal.id: place for place, goal in enumerate(_domain(settings).goals(str(settings.bank)))}
    achieved = [level.facts(look) for look in looks]
    level.close()
    episode = Episode(
        episode_id=_episode_id(settings, index),
        images={camera: _encode([look.frames[camera] for look in looks]) for camera in settings.cameras},
        actions=np.array(actions, np.int64),
        rewards=np.array(rewards, np.float32),
        terminations=np.array(terminations, np.bool_),
        truncations=np.array(truncations, np.bool_),
        instruction=mission,
        achieved_goals=[sorted(facts & order.keys(), key=order.__getitem__) for facts in achieved],
    )
    return episode, gave_up


def _advice(expert: Expert | None, actions: Sequence[int]) -> int:
    if expert is None:
        raise ExpertGaveUpError("the level has no expert")
    return expert.act(actions[-1] if actions else None)


def _encode(frames: list[np.ndarray]) -> list[bytes]:
    """Encodes frames as PNG; many frames of an episode are equal, and each is encoded once."""
    encoded: dict[bytes, bytes] = {}
    for frame in frames:
        pixels = frame.tobytes()
        if pixels not in encoded:
            encoded[pixels] = encode_png(frame)
    return [encoded[frame.tobytes()] for frame in frames]
