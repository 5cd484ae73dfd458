"""Thin borders to the world: Kubernetes, Triton and the keeper. They decide nothing."""
