"""From scores to rewards, and the goals that an episode achieved."""
