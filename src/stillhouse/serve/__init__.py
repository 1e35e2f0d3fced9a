"""What answers requests; no torch here."""
