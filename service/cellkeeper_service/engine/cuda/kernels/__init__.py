"""Triton kernels: the only modules that import triton.

    products     one tile of a matrix product, by precision, in a fixed order of summation
    pointwise    exp, expm1, tanh, sigmoid, softplus, sinh, erf and the activations made of them, to within a few ulp,
                 from additions, products and divisions only
    preprocess   the raw inputs -> the input of the first layer
    recurrent    one time step of one layer: LSTM, GRU, RNN
    dense        a projection, and the layers of the head
    transform    the output transforms, including softmax
    finish       the states after the last step -> the arena, and the finite flags

Every argument that depends on the batch, the time step or the buffer is a plain integer on which the compiler does not
specialize, so one binary serves every batch and every chunk: see "What decides the bits" in `cells`.
"""
