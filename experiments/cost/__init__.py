"""What a loss and a training step cost."""
