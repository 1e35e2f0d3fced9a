"""From a checkpoint to a graph that serves without torch."""
