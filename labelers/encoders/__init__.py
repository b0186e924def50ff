"""Pictures and texts to unit vectors of one space."""
