"""Drawing: one function per figure, from a results table to a matplotlib figure, and no more."""
