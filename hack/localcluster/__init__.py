"""A real Kubernetes cluster with two nodes on one Linux host, without Docker."""
