"""Sources, validation, vocabulary, sequences, splits and the built-in shop."""
