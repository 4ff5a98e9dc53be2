"""Tests of the PTX that Triton compiles. They run where it is emulated: EMULATE_PTX=90,once,late."""
