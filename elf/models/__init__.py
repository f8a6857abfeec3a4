"""Neural networks: what they share is one call signature and masks."""
