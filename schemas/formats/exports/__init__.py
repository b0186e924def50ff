"""What labels become in the formats that other tools read."""
