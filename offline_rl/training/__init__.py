"""Offline training and live fine-tuning."""
