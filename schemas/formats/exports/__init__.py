"""Exports of labels to the formats of other tools."""
