"""Scores pictures for goals in words. Run: python label_pictures.py MODEL PICTURE...

MODEL is a Hugging Face dual encoder, such as openai/clip-vit-large-patch14, or its folder.
"""

import sys

import numpy as np
from PIL import Image, ImageOps

import vlm_rewards as vr

model, *paths = sys.argv[1:]
goals = ["a red ball", "a green box"]
negatives = {"explicit": ["an empty room"]}
labeler = vr.load_labeler(model, goals, templates=("a photo of {goal}",), negatives=negatives, threshold=0.5)
pictures = [np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")) for path in paths]
for path, scores in zip(paths, labeler(pictures), strict=True):
    print(path, *(f"{goal}: {score:.2f}" for goal, score in zip(goals, scores, strict=True)), sep="  ")
