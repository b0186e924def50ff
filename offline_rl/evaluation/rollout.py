"""Plays an agent on held-out levels and shows what it did: success with intervals, one record per episode, videos.

rollout/rollout.json     figures overall and by family, and one record per episode
rollout/episode-000.gif  videos of the first episodes; their captions have the goal and both verdicts
rollout/index.html       a page with all of it that opens offline
"""

import dataclasses
import html
import json
import shlex
from pathlib import Path
from typing import Unpack

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlm_rewards.labelers.domains.domain import suggest_environment
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import check_labeler
from vlm_rewards.labelers.settings import settings_from_json
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings
from vlm_rewards.offline_rl.environments.live_frames import fit_to_corpus
from vlm_rewards.offline_rl.evaluation.episode_records import EpisodeRecord, Evaluation
from vlm_rewards.offline_rl.evaluation.evaluation import environments_at_once, evaluate_agent
from vlm_rewards.offline_rl.evaluation.rollout_settings import RolloutKeywords, RolloutSettings
from vlm_rewards.offline_rl.runs.folders import describe_settings, progress_bar, torch_threads
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.schemas.files.remote_paths import local_path
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import claimed
from vlm_rewards.schemas.options import build_settings, shows_settings

_VIDEO_SIDE = 224
_CAPTION = 34
_FRAME_MS = 150
_LAST_FRAME_MS = 1200


@shows_settings(RolloutSettings)
def rollout(agent: str | Path, *, output: str | Path, **settings: Unpack[RolloutKeywords]) -> Evaluation:
    """Plays an agent on held-out levels and writes what it did.

    Args:
        agent: Folder that `train` or `finetune` has finished.
        output: Folder to write; absent, empty, or of the same rollout.
        settings: Fields of `RolloutSettings`.

    Returns:
        The evaluation.

    Raises:
        ValueError: There is no such agent, no environment is named, no goals were held out, the labeler has changed, or the
            environments do not fit.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.rollout("agent/", output="rollout/", envs=["BabyAI-GoToLocal-v0"], episodes=4, videos=1)
        Evaluation(4 episodes: success ... (... to ...), rewarded ... (... to ...))
    """
    (how,) = build_settings(settings, RolloutSettings)
    with torch_threads(how.threads):
        return _rollout(agent, local_path(output, "a rollout"), how)


def _rollout(agent: str | Path, output: Path, settings: RolloutSettings) -> Evaluation:
    saved = load_agent(agent)
    envs = settings.envs or _envs_without_imports(saved.envs, agent)
    if not envs:
        raise ValueError(
            f"an environment must be named: got none, and the agent {agent} was trained without one. Give --env. "
            f"{suggest_environment('')}"
        )
    if settings.held_out_goals and not saved.held_out_goals:
        raise ValueError(
            f"held-out goals must be goals that the agent was never trained on, got an agent, {agent}, that none were held out "
            f"from. Train it with --hold-out."
        )
    environments = fit_to_corpus(
        EnvironmentSettings(
            envs=envs,
            num_envs=environments_at_once(envs),
            seed=settings.seed,
            camera=settings.camera,
            frames=saved.frames if settings.frames is None else settings.frames,
        ),
        saved.agent.spaces,
        frame_shape=saved.frame_shape,
        camera=saved.camera,
        labels=saved.labels_camera,
    )
    labeler = Labeler.build(settings_from_json(saved.labeler))
    check_labeler(labeler, saved.labels_fingerprint, str(environments.camera))
    apart = set(saved.held_out_goals)
    described = describe_settings(settings, unimportant=(), added=("camera", "frames"))
    fingerprint = Fingerprint({"agent": saved.digest, **described, "envs": envs})
    shown = {**dataclasses.asdict(settings), "envs": envs, "agent": str(agent)}
    with claimed(output, kind="rollout", fingerprint=fingerprint, settings=shown, renew=True) as folder:
        with progress_bar("rollout", settings.episodes, unit="episode") as bar:
            evaluation = evaluate_agent(
                saved.agent,
                labeler,
                environments,
                goals=[goal for goal in labeler.goals if (goal.id in apart) == settings.held_out_goals],
                num_episodes=settings.episodes,
                temperature=settings.temperature,
                keep_frames=min(settings.videos, settings.episodes),
                progress=bar.update,
            )
        texts = {goal.id: goal.text for goal in labeler.goals}
        for record, frames in zip(evaluation.episodes, evaluation.frames, strict=False):
            save_video(frames, texts[record.goal_id], record, folder / f"episode-{record.episode:03d}.gif")
        written = {
            "summary": evaluation.summary(),
            "episodes": [dataclasses.asdict(episode) for episode in evaluation.episodes],
        }
        (folder / "rollout.json").write_text(json.dumps(written, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        page = _page(evaluation, texts, str(agent), held_out_goals=settings.held_out_goals)
        (folder / "index.html").write_text(page, encoding="utf-8")
    return evaluation


def _envs_without_imports(envs: tuple[str, ...], agent: str | Path) -> tuple[str, ...]:
    """Returns the environments of an agent's folder, which may come from elsewhere and must not choose what is imported.

    Raises:
        ValueError: One names a module.
    """
    imports = [name for name in envs if ":" in name]
    if imports:
        options = " ".join(f"--env {shlex.quote(name)}" for name in envs)
        raise ValueError(
            f"modules are imported only where the command names them, got {imports[0]!r} in the agent folder {agent}. If you trust "
            f"the module {imports[0].partition(':')[0]!r}, add: {options}"
        )
    return envs


def save_video(frames: np.ndarray, goal: str, record: EpisodeRecord, path: Path) -> None:
    """Writes an episode as a GIF.

    Args:
        frames: [F, H, W, 3] uint8.
        goal: Text of the goal.
        record: Record of the episode.
        path: File to write.
    """
    font = ImageFont.load_default(12)
    pages = []
    for index, frame in enumerate(frames):
        page = Image.new("RGB", (_VIDEO_SIDE, _VIDEO_SIDE + _CAPTION), "white")
        page.paste(Image.fromarray(frame).resize((_VIDEO_SIDE, _VIDEO_SIDE), Image.Resampling.NEAREST), (0, _CAPTION))
        draw = ImageDraw.Draw(page)
        draw.text((4, 2), goal, fill="black", font=font)
        told = record.vlm_step is not None and index >= record.vlm_step
        ended = index == len(frames) - 1 and record.success is not None
        truth = "" if not ended else ", in truth: achieved" if record.success else ", in truth: not achieved"
        draw.text((4, 17), f"frame {index}, model: {'achieved' if told else 'not yet'}{truth}", fill="#444", font=font)
        pages.append(page)
    durations = [_FRAME_MS] * (len(pages) - 1) + [_LAST_FRAME_MS]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, loop=0, optimize=False)


def _page(evaluation: Evaluation, texts: dict[str, str], agent: str, *, held_out_goals: bool) -> str:
    asked = ", asked for goals that were held out of its training" if held_out_goals else ""
    summary = evaluation.summary()
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{part['episodes']}</td><td>{_share(part['success'])}</td>"
        f"<td>{_share(part['mission_done'])}</td><td>{_share(part['vlm_success'])}</td><td>{_share(part['false_positive_share'])}</td></tr>"
        for name, part in [*summary["families"].items(), ("all", summary)]
    )
    cards = "".join(
        f'<figure><img src="episode-{record.episode:03d}.gif" width={_VIDEO_SIDE} height={_VIDEO_SIDE + _CAPTION} loading=lazy '
        f'alt="episode {record.episode}"><figcaption>{html.escape(texts[record.goal_id])}: {_verdict(record)} after '
        f"{record.num_steps} steps</figcaption></figure>"
        for record in evaluation.episodes[: len(evaluation.frames)]
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>Rollout</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;"
        "color-scheme:light dark}table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.3rem .8rem;"
        "border-bottom:1px solid #8884;text-align:left}section{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;"
        f"width:{_VIDEO_SIDE}px}}figcaption{{font-size:.85rem}}</style><h1>What the agent does</h1><p>The agent "
        f"<code>{html.escape(agent)}</code> on {len(evaluation.episodes)} levels that nothing was trained on{asked}. Shares with "
        "95 % intervals (Wilson); the truth judges, the model's verdict stands beside it.</p><table><tr><th>Goals<th>Episodes<th>"
        "Achieved in truth<th>Mission done, says the level<th>Rewarded by the model<th>Rewarded wrongly, of those</tr>"
        f"{rows}</table><h2>Episodes</h2><section>{cards}</section></html>\n"
    )


def _share(interval: dict | None) -> str:
    return (
        "&ndash;"
        if interval is None
        else f"{interval['mean']:.2f} ({interval['low']:.2f}&ndash;{interval['high']:.2f})"
    )


def _verdict(record: EpisodeRecord) -> str:
    if record.success is None:
        return "rewarded" if record.vlm_success else "not rewarded"
    return "achieved" if record.success else "not achieved"
