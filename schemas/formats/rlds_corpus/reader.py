"""Corpora in RLDS: TFRecord files with one record per episode, as TensorFlow Datasets writes them, and Open X-Embodiment is.

    toy-train.tfrecord-00001-of-00012, record 7   ──►  episode "train-00001-00007"

Where there are several data sets, the folder of its data set goes before an episode's id, as in "toy/1.0.0/train-00001-00007".
What files hold goes before what dataset_info.json says. See `tfrecord` and `examples` for the bytes, `roles` for what the
features are, `steps` for how an episode is put together.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.rlds_corpus.examples import Example, parse_example
from vlm_rewards.schemas.formats.rlds_corpus.layout import Builder, Shard, find_builders
from vlm_rewards.schemas.formats.rlds_corpus.notes import data_set_notes
from vlm_rewards.schemas.formats.rlds_corpus.roles import LAST_ACTIONS, REWARD, Roles, choose_roles
from vlm_rewards.schemas.formats.rlds_corpus.steps import (
    DataSet,
    build_episode,
    count_in,
    ends_with_filler,
    present_cameras,
)
from vlm_rewards.schemas.formats.rlds_corpus.tfrecord import (
    BrokenFileError,
    BrokenRecordError,
    Record,
    open_record,
    walk_records,
)
from vlm_rewards.schemas.formats.units import file_ranges, file_stem, share_units
from vlm_rewards.schemas.manifests import Failure, Unit

_PROBED_EPISODES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class RldsReader:
    """An open RLDS corpus; see the module's picture.

    Args:
        folder: Folder of the corpus.
        features: Features of its episodes.
        data_sets: Data sets of the corpus.
        shards: Files by name, each with the number of its data set.
        companions: Names of the other files of its data sets, and of shards that nobody asked for.
        reverse: Whether channels are stored in the order BGR.
    """

    folder: Folder
    features: CorpusFeatures
    data_sets: tuple[DataSet, ...]
    shards: Mapping[str, tuple[Shard, int]]
    companions: tuple[str, ...]
    reverse: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on missing files, differing counts, and pictures that are not cameras."""
        found: list[str] = []
        for number, data_set in enumerate(self.data_sets):
            shards = [shard for shard, owner in self.shards.values() if owner == number]
            found += data_set_notes(self.folder, data_set.folder, shards, data_set.roles, data_set.all_cameras)
        return (*found, *_differences(self.data_sets))

    def own_files(self) -> Iterator[str]:
        """Yields the shards, and what lies beside them."""
        yield from self.shards
        yield from self.companions

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns one unit per file, several of about `max_bytes` for a large one. Small files share one; ranges count records."""
        units = [unit for shard, _ in self.shards.values() for unit in self._plan_shard(shard, max_bytes)]
        return share_units(self.folder, units, max_bytes)

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        for name, start, stop in file_ranges(unit):
            with self.folder.open(name) as file:
                try:
                    for record in _range(file, start, stop):
                        yield self._found(name, file, record, wanted)
                except BrokenFileError as error:
                    detail = f"a TFRecord file must be whole, got one that {error}; the rest is lost. Copy it again"
                    yield Failure(scope="shard", shard=name, reason="unreadable shard", detail=detail)
                except Exception as error:
                    error.add_note(f"while reading {self.folder.path(name)}")
                    raise

    def episode_ids(self, unit: Unit) -> Iterator[str]:
        """Yields the ids of the unit's episodes, by the lengths of records alone."""
        for name, start, stop in file_ranges(unit):
            with self.folder.open(name) as file:
                try:
                    for record in _range(file, start, stop):
                        yield self.episode_id(name, record.number)
                except BrokenFileError:
                    pass  # reported as a Failure when the unit is read

    def labelled_by(self, unit: Unit) -> dict[str, str]:
        """Returns the model whose labels the rewards of any of the unit's data sets are."""
        for number in dict.fromkeys(self.shards[name][1] for name in unit.files):
            name = mark_file(self.data_sets[number])
            model = own_labels.model_of(self.folder.read(name)) if self.folder.has_file(name) else None
            if model is not None:
                return {own_labels.REWARDS: model}
        return {}

    def episode_id(self, name: str, record: int) -> str:
        """Returns the id of the episode in a record.

        Args:
            name: Name of the file.
            record: Number of the record in it.
        """
        shard, number = self.shards[name]
        return f"{self.data_sets[number].prefix}{shard.split}-{shard.number:05d}-{record:05d}"

    def _found(self, name: str, file: BinaryIO, record: Record, wanted: Wanted) -> FoundEpisode:
        """Returns the episode of a record; what is wrong with it is said when it is read."""
        data_set = self.data_sets[self.shards[name][1]]
        episode_id = self.episode_id(name, record.number)
        where = f"record {record.number} at byte {record.start}"
        problem: InvalidEpisodeError
        try:
            data, start = open_record(self.folder, name, file, record)
            example = parse_example(data, start, record.num_bytes)
            cameras = present_cameras(example, data_set.roles)
            num_frames = count_in(example, data_set.roles, cameras)

            def read() -> Episode:
                try:
                    return build_episode(episode_id, example, data_set, cameras, wanted, self.reverse)
                except InvalidEpisodeError:
                    raise
                except ValueError as error:
                    raise InvalidEpisodeError("invalid episode", f"{where}: {error}") from error

            return FoundEpisode(episode_id, num_frames, name, read, cameras)
        except BrokenRecordError as error:
            problem = InvalidEpisodeError("wrong checksum", f"{error}. Copy the file again")
        except ValueError as error:
            detail = f"{where} cannot be read: {error}"
            problem = InvalidEpisodeError("broken record", detail)

        def refuse() -> Episode:
            raise problem

        return FoundEpisode(episode_id, 0, name, refuse)

    def _plan_shard(self, shard: Shard, max_bytes: int) -> list[Unit]:
        name = shard.file.name
        prefix = self.episode_id(name, 0).rpartition("-")[0]
        whole = Unit(
            name=file_stem(f"{name}."),  # the dot ends what is kept of the name: all of it
            files=(name,),
            num_bytes=shard.file.num_bytes,
            num_episodes=shard.num_records,
            id_bounds=(f"{prefix}-", f"{prefix}-~"),
        )
        if shard.file.num_bytes <= max_bytes:
            return [whole]
        starts: list[Record] = []
        with self.folder.open(name) as file:
            try:
                for record in walk_records(file):
                    if not starts or record.start - starts[-1].start >= max_bytes:
                        starts.append(record)
            except BrokenFileError:
                pass  # the last unit stays uncut, and its reader says what is wrong
        if len(starts) < 2:
            return [whole]
        return [
            dataclasses.replace(
                whole,
                name=f"{whole.name}-r{first.number:07d}",
                start=first.number,
                stop=-1 if after is None else after.number,
                num_bytes=(shard.file.num_bytes if after is None else after.start) - first.start,
                num_episodes=None if after is None else after.number - first.number,
                id_bounds=(
                    self.episode_id(name, first.number),
                    f"{prefix}-~" if after is None else self.episode_id(name, after.number - 1),
                ),
            )
            for first, after in zip(starts, [*starts[1:], None], strict=True)
        ]


def mark_file(data_set: DataSet) -> str:
    """Returns the name of the file that says whose labels a data set's rewards are."""
    return f"{data_set.folder}/{own_labels.FILE}" if data_set.folder else own_labels.FILE


def open_rlds(folder: Folder, options: Mapping[str, str]) -> RldsReader:
    """Opens a folder of TensorFlow Datasets.

    Raises:
        ValueError: There is no data set that can be read, or an option has a value that is none.
    """
    _check(options, "channels", ("rgb", "bgr"))
    _check(options, "last-action", LAST_ACTIONS)
    all_builders = find_builders(folder)
    builders = _chosen(all_builders, options, folder)
    data_sets: list[DataSet] = []
    shards: dict[str, tuple[Shard, int]] = {}
    for number, builder in enumerate(builders):
        roles = choose_roles(builder.declared, options, folder.path(builder.folder).rstrip("/"))
        seen, filler = _probe(folder, builder, roles)
        all_cameras = list(roles.cameras)
        if seen and "cameras" not in options:
            roles = dataclasses.replace(
                roles, cameras={name: roles.cameras[name] for name in roles.cameras if name in seen}
            )
        how = options.get("last-action", "auto")
        final = how == "invalid" or (how == "auto" and filler)
        prefix = f"{builder.folder}/" if len(builders) > 1 and builder.folder else ""
        data_sets.append(
            DataSet(
                folder=builder.folder,
                prefix=prefix,
                roles=roles,
                has_final_steps=final,
                all_cameras=tuple(all_cameras),
            )
        )
        shards |= {shard.file.name: (shard, number) for shard in builder.shards}
    return RldsReader(
        folder=folder,
        features=_features(data_sets),
        data_sets=tuple(data_sets),
        shards=shards,
        companions=tuple(
            name
            for builder in all_builders
            for name in (*builder.companions, *(shard.file.name for shard in builder.shards))
            if name not in shards
        ),
        reverse=options.get("channels") == "bgr",
    )


def _check(options: Mapping[str, str], name: str, values: Sequence[str]) -> None:
    if options.get(name, values[0]) not in values:
        raise ValueError(f"the option {name} must be {' or '.join(values)}: got {options[name]!r}. Choose one of them")


def _chosen(builders: Sequence[Builder], options: Mapping[str, str], folder: Folder) -> list[Builder]:
    """Returns the builders with the shards of the chosen splits, without those that have none of them."""
    if "split" not in options:
        return list(builders)
    known = {shard.split for builder in builders for shard in builder.shards}
    splits = {split.strip() for split in options["split"].split(",")}
    if not splits <= known:
        raise ValueError(
            f"a split must be one of {', '.join(sorted(known))}: got {sorted(splits - known)[0]!r} for {folder}. Choose one of them"
        )
    chosen = [
        dataclasses.replace(builder, shards=tuple(shard for shard in builder.shards if shard.split in splits))
        for builder in builders
    ]
    return [builder for builder in chosen if builder.shards]


def _differences(data_sets: Sequence[DataSet]) -> Iterator[str]:
    """Yields notes on data sets that hold other actions, states or rewards than the first: each is read as what it is."""
    first = data_sets[0]
    for other in data_sets[1:]:
        differing = [
            f"{what} ({_words(mine)} and {_words(theirs)})"
            for what, mine, theirs in (
                ("actions", first.roles.action_size, other.roles.action_size),
                ("states", first.roles.state_size, other.roles.state_size),
                ("rewards", first.roles.has_number(REWARD), other.roles.has_number(REWARD)),
            )
            if mine != theirs
        ]
        if differing:
            yield (
                f"{first.folder} and {other.folder} hold other {', '.join(differing)}: each is read with its own; hindsight fails "
                f"episodes that differ from those of {first.folder}, so give it the folder of one"
            )


def _words(size: int | bool | None) -> str:
    if isinstance(size, bool):
        return "some" if size else "none"
    return "none" if size is None else f"{size} numbers" if size else "discrete ones"


def _features(data_sets: Sequence[DataSet]) -> CorpusFeatures:
    has_actions = data_sets[0].roles.action_size is not None
    return CorpusFeatures(
        cameras=tuple(dict.fromkeys(camera for data_set in data_sets for camera in data_set.roles.cameras)),
        action_size=data_sets[0].roles.action_size,
        state_size=data_sets[0].roles.state_size,
        has_rewards=data_sets[0].roles.has_number(REWARD),
        has_instruction=any(data_set.roles.instructions for data_set in data_sets),
        missing_frame="last" if has_actions and not any(data_set.has_final_steps for data_set in data_sets) else None,
    )


def _examples(folder: Folder, builder: Builder) -> Iterator[Example]:
    """Yields the readable records of a data set."""
    for shard in builder.shards:
        name = shard.file.name
        with folder.open(name) as file:
            try:
                for record in walk_records(file):
                    try:
                        data, start = open_record(folder, name, file, record)
                        yield parse_example(data, start, record.num_bytes)
                    except (BrokenRecordError, ValueError):
                        continue  # the read of the record says so, as a Failure
            except BrokenFileError:
                continue


def _probe(folder: Folder, builder: Builder, roles: Roles) -> tuple[set[str], bool]:
    """Returns which cameras the first episodes have, and whether all of them end with a filler for an action."""
    seen: set[str] = set()
    endings = []
    for example in itertools.islice(_examples(folder, builder), _PROBED_EPISODES):
        try:
            seen.update(present_cameras(example, roles))
            endings.append(ends_with_filler(example, roles))
        except ValueError:
            endings.append(False)  # the read of the episode says what is wrong
    return seen, bool(endings) and all(endings)


def _range(file: BinaryIO, start: int, stop: int) -> Iterator[Record]:
    return itertools.islice(walk_records(file), start, None if stop < 0 else stop)
