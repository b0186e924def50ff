"""Makes labelled_episode.png: one episode as a film strip, and the scores of its goals below it, frame by frame.

    python docs/pictures/labelled_episode.py

Records twelve episodes of BabyAI, labels them for all 342 goals with a reference model, and draws one. Nothing in the picture is
drawn by hand: frames, instruction, scores, successes and ground truth are what the commands wrote.
"""

import io
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.dataset
from matplotlib import pyplot
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

OUTPUT = Path(__file__).with_suffix(".png")
LEVEL, SEED, EPISODES = "BabyAI-PutNextLocal-v0", 7, 12
MODEL = "reference-s"
MAX_FRAMES, MAX_GOALS = 18, 9
ROW, FONT = 0.62, 11
SCORES = LinearSegmentedColormap.from_list("scores", ["#f2f4f7", "#9cc3e6", "#1f5fa8", "#0b2c56"])
TRUTH, SUCCESS = "#e07b00", "#ffffff"


def make_labels(folder: Path) -> None:
    """Records and labels the corpus, with the commands that a reader would use."""
    record = ["record", "--env", LEVEL, "--policy", "bot", "--episodes", EPISODES, "--seed", SEED]
    label = ["label", "--input", folder / "corpus", "--goals", folder / "corpus/goals.jsonl", "--model", MODEL]
    for words in ([*record, "--output", folder / "corpus"], [*label, "--output", folder / "labels"]):
        subprocess.run(["vlm-rewards", *(str(word) for word in words)], check=True)


def read_episode(folder: Path) -> tuple[list[dict], np.ndarray, list[dict], float]:
    """Reads the longest episode that fits: its rows, its scores [F, G], the goals and their threshold."""
    rows = pyarrow.dataset.dataset(folder / "corpus/parts").to_table().to_pylist()
    labels = pyarrow.dataset.dataset(folder / "labels/parts").to_table()
    own = json.loads(labels.schema.metadata[b"vlm_rewards"])
    scores = np.array(labels["scores"].to_pylist(), dtype=np.float32)
    assert [row["episode_id"] for row in rows] == labels["episode_id"].to_pylist()
    lengths = {row["episode_id"]: row["frame_index"] + 1 for row in rows}
    chosen = max((length, name) for name, length in lengths.items() if length <= MAX_FRAMES)[1]
    of_episode = [index for index, row in enumerate(rows) if row["episode_id"] == chosen]
    return [rows[index] for index in of_episode], scores[of_episode], own["goals"], own["rule"]["thresholds"]


def choose_goals(scores: np.ndarray, truth: np.ndarray, goals: list[dict], threshold: float, asked: str) -> list[int]:
    """Chooses one goal per group: what the instruction asks for last, before it those that hold or fire, in order of time."""
    either = truth | (scores > threshold)
    first = np.where(either.any(axis=0), either.argmax(axis=0), len(scores))
    original = next(index for index, goal in enumerate(goals) if asked in goal["instructions"])
    one_per_group = {goals[original]["group"]: original}
    for index in sorted(range(len(goals)), key=lambda goal: (first[goal], -scores[:, goal].max())):
        one_per_group.setdefault(goals[index].get("group", goals[index]["id"]), index)
    return [*list(one_per_group.values())[1:MAX_GOALS], original]


def draw(rows: list[dict], scores: np.ndarray, goals: list[dict], threshold: float) -> None:
    """Draws the film strip over the heat map, a column per frame; a unit is the width of a column, in both directions."""
    truth = np.array([[goal["id"] in row["achieved_goals"] for goal in goals] for row in rows])
    chosen = choose_goals(scores, truth, goals, threshold, rows[0]["instruction"])
    bottom = 1.2 + ROW * len(chosen)
    figure, axes = pyplot.subplots(figsize=(11, 4.6), dpi=130)
    for t, row in enumerate(rows):
        frame = np.asarray(Image.open(io.BytesIO(row["observation.images.egocentric"]["bytes"])))
        axes.imshow(frame, extent=(t + 0.03, t + 0.97, 0.97, 0.03), interpolation="nearest")
        for place, goal in enumerate(chosen):
            y = 1.2 + ROW * place
            cell = {"xy": (t + 0.05, y + 0.05), "width": 0.9, "height": ROW - 0.1}
            axes.add_patch(Rectangle(**cell, facecolor=SCORES(float(scores[t, goal])), linewidth=0))
            if truth[t, goal]:
                axes.add_patch(Rectangle(**cell, fill=False, edgecolor=TRUTH, linewidth=2))
            if scores[t, goal] > threshold:
                axes.plot(t + 0.5, y + ROW / 2, "o", color=SUCCESS, markersize=4.5)
    text = {"ha": "right", "va": "center", "fontsize": FONT}
    axes.text(-0.2, 0.5, f'"{rows[0]["instruction"]}"', style="italic", **text)
    for place, goal in enumerate(chosen):
        axes.text(-0.2, 1.2 + ROW * (place + 0.5), goals[goal]["text"], **text)
    marks = [
        Line2D(
            [], [], marker="s", color=SCORES(0.8), markersize=10, linestyle="none", label="score, 0 (pale) to 1 (dark)"
        ),
        Line2D(
            [], [], marker="o", color=SCORES(0.8), markerfacecolor=SUCCESS, linestyle="none", label="label: achieved"
        ),
        Line2D(
            [],
            [],
            marker="s",
            color=TRUTH,
            markerfacecolor="none",
            markersize=10,
            linestyle="none",
            label="truth: achieved",
        ),
    ]
    axes.legend(handles=marks, loc="upper right", bbox_to_anchor=(1.01, 0.06), ncols=3, frameon=False, fontsize=FONT)
    axes.set(xlim=(0, len(rows)), ylim=(bottom + 0.6, 0), aspect="equal")
    axes.axis("off")
    figure.savefig(OUTPUT, bbox_inches="tight", facecolor="white", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        make_labels(Path(name))
        draw(*read_episode(Path(name)))
