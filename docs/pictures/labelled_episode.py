"""Makes labelled_episode.png: one episode as a film strip, and the scores of its goals below it, frame by frame.

    python docs/pictures/labelled_episode.py

Records twelve episodes of BabyAI, labels them for all 342 goals with a reference model, and draws one. Nothing in the picture is
drawn by hand: frames, instruction, scores, successes and ground truth are what the run wrote.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

import vlm_rewards as vr

OUTPUT = Path(__file__).with_suffix(".png")
LEVEL, SEED, EPISODES = "BabyAI-PutNextLocal-v0", 7, 12
MODEL = "reference-s"
MAX_FRAMES, MAX_GOALS = 18, 9
ROW, FONT = 0.62, 11
SCORES = LinearSegmentedColormap.from_list("scores", ["#f2f4f7", "#9cc3e6", "#1f5fa8", "#0b2c56"])
TRUTH, SUCCESS = "#e07b00", "#ffffff"


def make_labels(folder: Path) -> None:
    """Records and labels the corpus."""
    vr.record(output=folder / "corpus", envs=[LEVEL], policy="bot", episodes=EPISODES, seed=SEED)
    labeler = vr.load_labeler(MODEL, vr.read_goals(folder / "corpus/goals.jsonl"))
    vr.label(folder / "corpus", labeler.settings, output=folder / "labels")


def read_episode(folder: Path) -> tuple[vr.Episode, np.ndarray, vr.Labels]:
    """Reads the longest episode that fits the picture, its scores [F, G], and the labels that they are of."""
    labels = vr.open_labels(folder / "labels")
    scores = {episode.episode_id: episode.scores for episode in labels.episodes()}
    fitting = [episode for episode in vr.open_corpus(folder / "corpus") if episode.num_frames <= MAX_FRAMES]
    chosen = max(fitting, key=lambda episode: (episode.num_frames, episode.episode_id))
    return chosen, scores[chosen.episode_id], labels


def choose_goals(
    scores: np.ndarray, truth: np.ndarray, fires: np.ndarray, goals: tuple[vr.Goal, ...], asked: str
) -> list[int]:
    """Chooses one goal per group: what the instruction asks for last, before it those that hold or fire, in order of time."""
    either = truth | fires
    first = np.where(either.any(axis=0), either.argmax(axis=0), len(scores))
    original = next(index for index, goal in enumerate(goals) if asked in goal.instructions)
    one_per_group = {goals[original].group: original}
    for index in sorted(range(len(goals)), key=lambda goal: (first[goal], -scores[:, goal].max())):
        one_per_group.setdefault(goals[index].group or goals[index].id, index)
    return [*list(one_per_group.values())[1:MAX_GOALS], original]


def draw(episode: vr.Episode, scores: np.ndarray, labels: vr.Labels) -> None:
    """Draws the film strip over the heat map, a column per frame; a unit is the width of a column, in both directions."""
    goals, fires = labels.goals, scores > labels.metadata.rule.threshold_array
    truth = np.array([[goal.id in holding for goal in goals] for holding in episode.achieved_goals])
    chosen = choose_goals(scores, truth, fires, goals, episode.instruction)
    bottom = 1.2 + ROW * len(chosen)
    figure, axes = pyplot.subplots(figsize=(11, 4.6), dpi=130)
    for t, frame in enumerate(episode.images["egocentric"]):
        pixels = np.asarray(Image.open(io.BytesIO(frame)))
        axes.imshow(pixels, extent=(t + 0.03, t + 0.97, 0.97, 0.03), interpolation="nearest")
        for place, goal in enumerate(chosen):
            y = 1.2 + ROW * place
            cell = {"xy": (t + 0.05, y + 0.05), "width": 0.9, "height": ROW - 0.1}
            axes.add_patch(Rectangle(**cell, facecolor=SCORES(float(scores[t, goal])), linewidth=0))
            if truth[t, goal]:
                axes.add_patch(Rectangle(**cell, fill=False, edgecolor=TRUTH, linewidth=2))
            if fires[t, goal]:
                axes.plot(t + 0.5, y + ROW / 2, "o", color=SUCCESS, markersize=4.5)
    text = {"ha": "right", "va": "center", "fontsize": FONT}
    axes.text(-0.2, 0.5, f'"{episode.instruction}"', style="italic", **text)
    for place, goal in enumerate(chosen):
        axes.text(-0.2, 1.2 + ROW * (place + 0.5), goals[goal].text, **text)
    marks = [
        ("score, 0 (pale) to 1 (dark)", {"marker": "s", "markersize": 10, "color": SCORES(0.8)}),
        ("label: achieved", {"marker": "o", "color": SCORES(0.8), "markerfacecolor": SUCCESS}),
        ("truth: achieved", {"marker": "s", "markersize": 10, "color": TRUTH, "markerfacecolor": "none"}),
    ]
    handles = [Line2D([], [], linestyle="none", label=label, **style) for label, style in marks]
    axes.legend(handles=handles, loc="upper right", bbox_to_anchor=(1.01, 0.06), ncols=3, frameon=False, fontsize=FONT)
    axes.set(xlim=(0, episode.num_frames), ylim=(bottom + 0.6, 0), aspect="equal")
    axes.axis("off")
    figure.savefig(OUTPUT, bbox_inches="tight", facecolor="white", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        make_labels(Path(name))
        draw(*read_episode(Path(name)))
