"""Networks of the agents: encoder, heads, losses."""
