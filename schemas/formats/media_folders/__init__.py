"""Corpora of plain files: a folder of videos, and folders of pictures."""
