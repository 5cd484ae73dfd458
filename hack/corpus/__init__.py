"""Every model that the onnx wheel ships goes through the builder, and tables tell what came of it.

`wheel` finds the models with the inputs and answers that lie beside them, `case` prepares one at one
precision and asks it, `compiling` makes plans of what was prepared, `parser` asks TensorRT's own parser
what it thinks of it, `verdict` says whether the outcome is one that is explained.
"""
