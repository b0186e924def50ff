"""How good labels are against ground truth, and how two labelings differ."""
