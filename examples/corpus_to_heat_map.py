# %% [markdown]
# From a corpus to a heat map: which goals the model sees achieved, frame by frame. Needs `pip install 'vlm-rewards[babyai]'`.

# %% A corpus with ground truth. Your own recordings work as well: vr.write_corpus, or any format that vr.open_corpus reads.
import matplotlib.pyplot as plt
import numpy as np

import vlm_rewards as vr

vr.record(output="corpus/", envs=["BabyAI-GoToLocal-v0"], policy="bot", episodes=12, seed=1)

# %% Labels: one score per frame and goal.
goals = vr.read_goals("corpus/goals.jsonl")
labeler = vr.load_labeler("reference-s", goals)
print(vr.label("corpus/", labeler.settings, output="labels/"))

# %% What the labels are worth, by ground truth.
quality = vr.evaluate("corpus/", "labels/", output="report/")
print(quality)

# %% The episode with the most goals achieved, and its goals.
labels = vr.open_labels("labels/")
episode = max(labels.episodes(), key=lambda found: int((found.scores > 0.5).any(axis=0).sum()))
truth = {found.episode_id: found.achieved_goals for found in vr.open_corpus("corpus/")}[episode.episode_id]
columns = np.flatnonzero((episode.scores > 0.5).any(axis=0))
names = [labels.goals[column].id for column in columns]

# %% The heat map: scores as colours, ground truth as dots.
figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * len(names)), layout="constrained")
image = axes.imshow(episode.scores[:, columns].T, aspect="auto", vmin=0, vmax=1, cmap="viridis")
held = [(frame, names.index(goal)) for frame, ids in enumerate(truth) for goal in ids if goal in names]
axes.scatter(*zip(*held, strict=True), s=12, color="red", label="holds in truth")
axes.set_yticks(range(len(names)), names)
axes.set_xlabel("frame")
axes.set_title(episode.episode_id)
axes.legend(loc="upper left")
figure.colorbar(image, label="score")
figure.savefig("heat_map.png", dpi=100)
