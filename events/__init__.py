"""What happened: the append-only journal."""
