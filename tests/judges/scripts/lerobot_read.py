"""Reads a data set with LeRobot: FOLDER OUT.npz [EPISODES.json]. Writes its scalar columns and first camera's frames to OUT.npz."""

import json
import sys
from pathlib import Path

import numpy as np
from lerobot_operators import LeRobotDataset

folder, out, *rest = sys.argv[1:]
episodes = json.loads(Path(rest[0]).read_text()) if rest else None
dataset = LeRobotDataset("judged/corpus", root=folder, episodes=episodes, video_backend="pyav")
camera = dataset.meta.camera_keys[0]
rows = [dataset[index] for index in range(len(dataset))]
columns = {
    name: np.stack([np.asarray(row[name]) for row in rows])
    for name in ("index", "episode_index", "frame_index", "next.reward", "next.success", "next.done", "vlm.scores")
    if name in rows[0]
}
frames = np.stack([np.asarray(row[camera]) for row in rows])  # [F, 3, H, W] float32 in 0..1
pixels = np.rint(frames.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
np.savez(out, frames=pixels, tasks=np.array([row["task"] for row in rows]), **columns)
