"""Jobs and keeper of triton-operator: prepares engines and keeps the model repository volume."""

__version__ = "0.1.0"
