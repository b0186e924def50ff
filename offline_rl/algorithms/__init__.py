"""One algorithm per file, and what they share."""
