"""What the data is: episodes, goals, labels, outputs, and their Arrow schemas. No torch, no Beam."""
