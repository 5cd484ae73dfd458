"""Every model that the onnx wheel ships goes through the builder, and a table tells what came of it.

`wheel` finds the models with the inputs and answers that lie beside them, `case` prepares one at one
precision and asks it, `verdict` says whether the outcome is one that is explained. What is made of the
prepared models afterwards (a compiler) takes them from `Outcome.entry`.
"""
