"""Live transitions and the rewards that the labeler gives them."""
