"""Data model: episodes, goals, labels, outputs, and their Arrow schemas. No torch, no Beam."""
