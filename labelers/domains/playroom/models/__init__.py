"""What the reference models of the playroom are trained on."""
