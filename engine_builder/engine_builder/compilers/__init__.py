"""What makes a plan of a prepared model, in the TensorRT image of a release.

Needs the standard library and `tensorrt` (or `tensorrt_rtx`), which is imported in a child process only.
"""
