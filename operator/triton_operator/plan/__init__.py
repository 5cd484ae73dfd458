"""Pure decisions: plain values in, plain values out. No I/O, and no clock but an argument."""
