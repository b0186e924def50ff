"""What the reference models of phones are trained on."""
