"""Checkpoints of transformers: found, looked at, downloaded, adapted and loaded."""
