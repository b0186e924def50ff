"""WebDataset tars of others: any names of members, one sample per episode or per step."""
