"""BabyAI: its goals and their truth, levels, scenes and captions."""
