"""Output folders of training runs, and the agents saved in them."""
