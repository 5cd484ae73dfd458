"""What drives the operator: the queue of keys, and a reconciler per kind."""
