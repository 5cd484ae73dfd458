"""`make demo`: from an empty cluster to right answers from real Triton pods."""
